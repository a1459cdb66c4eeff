"""Options of the dense probes."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from backbones.config import ViTConfig
from engine.channels import refuse_channels
from engine.config import BASIC, LabelFraction, Workers
from segmentation.config import LayoutName

Search = Literal["exact", "faiss"]
FeatureKind = Literal["raw", "standardised", "position_regressed"]
KINDS: tuple[FeatureKind, ...] = ("raw", "standardised", "position_regressed")
NEIGHBOURS = (1, 3, 10, 30)  # CAPI's; the largest is Hummingbird's and leads
LEADING_NEIGHBOURS = 30


@dataclass(frozen=True, kw_only=True)
class DenseProbeConfig(LabelFraction):
    """How features of patches are made and read out."""

    backbone: ViTConfig
    """Architecture; its image_size is what images are resized to (not cropped: the shape of an image is not kept)."""
    last_blocks: Annotated[int, BASIC] = 1
    """Blocks, counted from the end, whose patch tokens make the features, side by side."""
    features: Annotated[FeatureKind, BASIC] = "standardised"
    """What the leading metric reads: features as they are, of zero mean and unit variance over the training patches, or
    less the mean of their position. All three are reported."""
    memory: Annotated[int, BASIC] = 100_000
    """Training patches that are retrieved from, and that the linear classifiers train on; drawn by the seed."""
    linear_memory: Annotated[int | None, BASIC] = None
    """Of these the first so many train the linear classifiers, which hold them in float32; None takes all."""
    augmentation_epochs: Annotated[int, BASIC] = 0
    """Random crops of every training image that the memory is drawn from, in the place of the image (Hummingbird's are
    1 or 2); 0 takes the images as they are. Each is one more pass of the training images through the ViT."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of its image's area that a crop takes."""
    crop_flip: bool = False
    """Mirror half of the crops."""
    search: Annotated[Search, BASIC] = "exact"
    """What finds the nearest patches: torch, or `faiss` (pip install faiss-cpu), on the processor. Both compare with
    all of the memory, so they differ in ties and in rounding alone."""
    temperature: float = 0.02
    """A neighbour of cosine similarity s weighs exp(s / temperature)."""
    linear_iterations: int = 100
    """Most iterations of L-BFGS for each strength of the penalty."""
    layout: Annotated[LayoutName, BASIC] = "ade20k"
    """How the data set lies on disk (segmentation/data/layout.py); `folder` is images, index PNGs and classes.txt."""
    train_split: Annotated[str | None, BASIC] = None
    """Split of the memory; the layout's own unless given."""
    val_split: Annotated[str | None, BASIC] = None
    """Split to evaluate on; the layout's own unless given."""
    seed: Annotated[int, BASIC] = 0
    """Seed of random weights, of the memory and of the held-out images."""
    batch_size: Annotated[int, BASIC] = 32
    """Images per forward pass."""
    device: Annotated[str, BASIC] = "auto"
    """Where it is computed: `auto` (a GPU where there is one), `cpu`, `cuda`, or `cuda:N`, GPU N."""
    workers: Annotated[Workers, BASIC] = "auto"
    """Processes that load images; `auto` is 0 on a CPU and for a GPU the cores, 16 at most."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no probe."""
        self.check_fraction()
        refuse_channels(self.backbone.in_chans, "the dense probe")
        if not 1 <= self.last_blocks <= self.backbone.depth:
            raise ValueError(f"last_blocks is {self.last_blocks}; it is 1 to {self.backbone.depth}, the ViT's blocks.")
        if self.memory < 2:
            raise ValueError(f"memory is {self.memory}; give 2 patches or more (10,000 to 1,000,000 are usual).")
        if self.linear_memory is not None and not 2 <= self.linear_memory <= self.memory:
            raise ValueError(
                f"linear_memory is {self.linear_memory}; it is a part of the memory, 2 to {self.memory} patches."
            )
        self._check_crops()
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature:g}; give a number above 0 (0.02 is usual).")
        if self.linear_iterations < 1:
            raise ValueError(f"linear_iterations is {self.linear_iterations}; give 1 or more.")

    def _check_crops(self) -> None:
        """Raise ValueError for crops that cannot be cut, and for settings of crops where there are none: an arm of a
        study would be a copy of another."""
        if self.augmentation_epochs < 0:
            raise ValueError(f"augmentation_epochs is {self.augmentation_epochs}; give 0 (none) or more (1 or 2).")
        least, most = self.crop_scale
        if not 0 < least <= most <= 1:
            raise ValueError(
                f"crop_scale is {least:g} {most:g}; it is the least and the largest share of the area, above 0 and at "
                "most 1 (0.5 1 is usual)."
            )
        usual = {item.name: item.default for item in fields(self)}
        for name in ("crop_scale", "crop_flip"):
            if self.augmentation_epochs == 0 and getattr(self, name) != usual[name]:
                raise ValueError(f"{name} has no effect without crops; give augmentation_epochs 1 or 2 with it.")
