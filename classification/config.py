"""Options of classification."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from backbones.config import ViTConfig
from backbones.weights.normalisation import Normalisation
from engine.channels import ChannelStatistics, refuse_of_rgb
from engine.config import BASIC, COMPUTED, FILE, FeatureProbes, LabelFraction, RunConfig, Workers

Protocol = Literal["finetune", "linear", "partial"]
Pooling = Literal["mean", "class"]
Resize = Literal["pillow", "tensor"]
# timm's text without a choice of operations
RANDAUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*")


Decode = Literal["full", "reduced", "crop", "device"]


def check_crop_scale(scale: tuple[float, float]) -> None:
    """Raise ValueError for what is no least and largest share of an image's area."""
    least, most = scale
    if not 0 < least <= most <= 1:
        raise ValueError(
            f"crop_scale is {least:g} {most:g}; it is the least and the largest share of the area, above 0 and at "
            "most 1 (MAE's is 0.2 1)."
        )


def check_decode(decode: Decode, resize: Resize, augment_function: str | None = None) -> None:
    """Raise ValueError for what cannot go with images that the device decodes."""
    if decode != "device":
        return
    if resize != "tensor":
        raise ValueError(f"decode device: crops are resized by PyTorch there, not by {resize}; add --resize tensor.")
    if augment_function is not None:
        raise ValueError(
            "decode device: --augment-function changes pixels in the loader processes, which have none then; take "
            "--decode full."
        )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Training-time augmentation; evaluation resizes and crops the centre."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: bool = True
    """Flip horizontally half of the time."""
    randaugment: Annotated[str | None, BASIC] = None
    """timm's RandAugment, for instance `rand-m9-mstd0.5-inc1`; an empty text is none."""
    erase: Annotated[float, BASIC] = 0.0
    """Probability of random erasing, filled with noise per pixel."""
    mixup: Annotated[float, BASIC] = 0.0
    """Beta parameter of mixup."""
    cutmix: Annotated[float, BASIC] = 0.0
    """Beta parameter of cutmix; with mixup too, each batch takes one of them."""
    label_smoothing: Annotated[float, BASIC] = 0.1
    """Share of the target spread over all classes."""
    resize: Annotated[Resize, BASIC] = "pillow"
    """What resizes training crops: Pillow, as the published recipes, or torch's kernel for bytes, which makes a loader
    process 1.5 times as fast. Its pixels are 0.04 of 255 levels off Pillow's on average, and off by more than one level
    in 0.02 % of them (there by up to 15), so compare runs of one choice (perf/image_loader.py measures it)."""
    decode: Annotated[Decode, BASIC] = "full"
    """How JPEGs of training images are decoded: whole (full), or at 1/2, 1/4 or 1/8 of their sides where no crop is
    then smaller than the model's image (reduced), or where the crop that was drawn is not (crop); photographs of some
    megapixels are read several times as fast. Or by the GPU, in a batch (device, with --resize tensor; not measured).
    The pixels are other ones, so compare runs of one choice (docs/performance.md, docs/gpu.md)."""

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no augmentation."""
        check_crop_scale(self.crop_scale)
        check_decode(self.decode, self.resize)
        if self.decode == "device" and (self.randaugment or self.erase):
            raise ValueError(
                "decode device: RandAugment and random erasing change pixels in the loader processes, which have none "
                "then; leave --randaugment and --erase out, or take --decode full."
            )
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name):g}; it must not be negative (0 switches it off).")
        for name in ("erase", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}; it must be from 0 (off) to 1.")
        if self.randaugment and not RANDAUGMENT.fullmatch(self.randaugment):
            raise ValueError(
                f"randaugment is {self.randaugment!r}; write it as timm does, for instance rand-m9-mstd0.5-inc1 "
                "(an empty text switches it off)."
            )


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(LabelFraction, FeatureProbes, ChannelStatistics):
    """A ViT, its head and how they are trained."""

    backbone: ViTConfig
    """Architecture; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    augment: Augmentation
    """Training-time augmentation."""
    train_split: str = "train"
    """Folder of the training images, in that of the data."""
    val_split: str = "val"
    """Folder of the validation images, in that of the data."""
    statistics: Annotated[bool, BASIC] = False
    """Pre-training normalises pixels with the mean and std of the training images (pretraining/statistics.py)."""
    normalisation: Annotated[Normalisation | None, COMPUTED] = None
    """What that computed; None is ImageNet's, or what the initial weights state."""
    drop_path: Annotated[float, BASIC] = 0.0
    """Stochastic depth of the last block, rising linearly from 0."""
    head_std: float = 2e-5
    """Standard deviation of the head's initial weights (MAE's fine-tuning code)."""
    crop_pct: float = 224 / 256
    """Evaluation resizes the shorter side to resolution / crop_pct and crops the centre."""
    protocol: Annotated[Protocol, BASIC] = "finetune"
    """What learns: all; a linear layer on frozen features (`linear`); or the head and the last blocks (`partial`)."""
    tuned_blocks: Annotated[float, BASIC] = 1
    """Blocks that learn under `partial`, counted from the last; 0.5 is the MLP half of the last block."""
    pooling: Annotated[Pooling, BASIC] = "mean"
    """What the head reads: the mean of the patch tokens, or the class token."""
    class_token: Annotated[bool, COMPUTED] = True
    """Whether the ViT has a class token; without one where the initial weights have none and `pooling` is the mean."""
    train_list: Annotated[str | None, BASIC, FILE] = None
    """File with the training images to use, one name or class/name a line, as the 1 % and 10 % lists of ImageNet."""

    @property
    def reads_class_token(self) -> bool:
        """True where the head cannot do without it."""
        return self.pooling == "class"

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no protocol, and for what images of other channels have no use for."""
        channels, augment = self.backbone.in_chans, self.augment
        self.check_channels(channels)
        refuse_of_rgb(
            channels,
            augment_function=(self.run.augment_function, "--augment-function None"),
            randaugment=(augment.randaugment or None, "--randaugment None"),
            resize=(None if augment.resize == "pillow" else augment.resize, "--resize pillow"),
            decode=(None if augment.decode == "full" else augment.decode, "--decode full"),
        )
        if self.reads_class_token and not self.class_token:
            raise ValueError("pooling 'class' reads the class token, and the ViT is built without one.")
        if self.protocol == "partial":
            whole = self.tuned_blocks == int(self.tuned_blocks) and 1 <= self.tuned_blocks <= self.backbone.depth
            if not whole and self.tuned_blocks != 0.5:
                raise ValueError(
                    f"tuned_blocks is {self.tuned_blocks:g}; it must be 0.5 or a whole number from 1 to the depth of "
                    f"{self.backbone.depth} (no block at all is the protocol `linear`)."
                )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path:g}; it must be at least 0 (off) and below 1.")
        if not 0 < self.run.optim.layer_decay <= 1:
            raise ValueError(
                f"layer_decay is {self.run.optim.layer_decay:g}; it must be above 0 and at most 1 (1 is none)."
            )
        check_decode(self.augment.decode, self.augment.resize, self.run.augment_function)
        self.check_fraction()
        if self.label_fraction is not None and self.train_list is not None:
            raise ValueError("label_fraction and train_list were both given; one of them chooses the training images.")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(ChannelStatistics):
    """How features are made and probed."""

    backbone: ViTConfig
    """Architecture; its image_size is the resolution of the features."""
    pooling: Annotated[Pooling, BASIC] = "class"
    """What the leading metric reads: the class token, or the mean of the patch tokens."""
    class_token: Annotated[bool, COMPUTED] = True
    """Whether the ViT has a class token; without one where the initial weights have none and `pooling` is the mean."""
    crop_pct: float = 224 / 256
    """The shorter side is resized to resolution / crop_pct before the centre crop."""
    val_split: Annotated[str, BASIC] = "val"
    """Folder of the validation images, beside train/."""
    linear_epochs: Annotated[int, BASIC] = 100
    """Epochs of the linear classifiers on the cached features."""
    seed: Annotated[int, BASIC] = 0
    """Seed of random weights, of the held-out images and of the order of the linear classifiers' batches."""
    batch_size: Annotated[int, BASIC] = 64
    """Images per forward pass."""
    device: Annotated[str, BASIC] = "auto"
    """Where it is computed: `auto` (a GPU where there is one), `cpu`, `cuda`, or `cuda:N`, GPU N."""
    workers: Annotated[Workers, BASIC] = "auto"
    """Processes that load images; `auto` is 0 on a CPU and for a GPU the cores, 16 at most."""

    def __post_init__(self) -> None:
        """Raise ValueError for statistics that are not of the images' channels."""
        self.check_channels(self.backbone.in_chans)

    @property
    def reads_class_token(self) -> bool:
        """True where what leads the metrics cannot do without it."""
        return self.pooling == "class"
