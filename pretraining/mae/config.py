"""Options of MAE pre-training."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from backbones.config import Table, ViTConfig
from backbones.weights.normalisation import Normalisation
from classification.config import Decode, Resize, check_crop_scale, check_decode
from engine.channels import ChannelStatistics, refuse_of_rgb
from engine.config import BASIC, COMPUTED, FILE, FeatureProbes, RunConfig, UnlabelledSplits

MaskTokenIn = Literal["decoder", "encoder"]
LossOn = Literal["masked", "all"]
TargetKind = Literal["pixels", "normalised", "pca", "tokens"]
Sampling = Literal["random", "block", "grid"]
Views = Literal["none", "fixed_crop", "random_crop", "color_jitter"]
TokenizerKind = Literal["own", "dall_e"]
StatisticsOf = Literal["true", "visible"]


@dataclass(frozen=True, kw_only=True)
class MAEConfig(UnlabelledSplits, FeatureProbes, ChannelStatistics):
    """The encoder, the decoder and how they are trained (MAE, section 3, table 1 and appendix A.1)."""

    backbone: ViTConfig
    """Encoder; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    statistics: Annotated[bool, BASIC] = False
    """Normalise pixels with the mean and std of the training images (pretraining/statistics.py)."""
    normalisation: Annotated[Normalisation | None, COMPUTED] = None
    """What that computed; None is ImageNet's, or what the initial weights state."""
    mask_ratio: Annotated[float, BASIC] = 0.75
    """Share of patches that are masked (figure 5)."""
    sampling: Annotated[Sampling, BASIC] = "random"
    """Which patches are masked: any, BEiT's rectangles, or all but a regular grid of them (table 1f)."""
    mask_token: Annotated[MaskTokenIn, BASIC] = "decoder"
    """Where mask tokens stand in for masked patches. `encoder`: the encoder sees one at every masked patch (table 1c),
    which makes it 3.3 times the work at ViT-L."""
    position: Annotated[Table | None, BASIC] = None
    """Positions of the encoder: a fixed sin-cos table, a learned one, or none; the backbone's own unless given."""
    decoder_position: Annotated[Table, BASIC] = "sincos"
    """Positions of the decoder. With none it cannot tell one masked patch from another."""
    decoder_dim: Annotated[int, BASIC] = 512
    """Width of the decoder (table 1b)."""
    decoder_depth: Annotated[int, BASIC] = 8
    """Blocks of the decoder (table 1a)."""
    decoder_heads: Annotated[int, BASIC] = 16
    """Attention heads of the decoder."""
    target: Annotated[TargetKind, BASIC] = "normalised"
    """What is predicted of a patch: its pixels, its pixels normalised by their own mean and std, its largest PCA
    coefficients, fitted on training images before the first step, or the token of a tokenizer (table 1d)."""
    pca_components: Annotated[int, BASIC] = 96
    """Coefficients of target `pca`."""
    tokenizer: Annotated[str | None, BASIC, FILE] = None
    """The file (or folder: dall_e) of target `tokens`."""
    tokenizer_kind: Annotated[TokenizerKind, BASIC] = "own"
    """`own` is a tokenizer.safetensors of this project, `dall_e` the folder of OpenAI's encoder.pkl and decoder.pkl."""
    loss_on: Annotated[LossOn, BASIC] = "masked"
    """Patches that the loss is of: the masked ones, or all (0.5 % lower in the paper, section 3)."""
    augmentation: Annotated[Views, BASIC] = "random_crop"
    """Training images (table 1e): `none` is the centre without flip; `fixed_crop` is a random place at a fixed scale;
    `random_crop` is a random place and scale; `color_jitter` changes the colours of that."""
    crop_scale: Annotated[tuple[float, float], BASIC] = (0.2, 1.0)
    """Share of the image's area that a crop of random scale takes."""
    decode: Annotated[Decode, BASIC] = "full"
    """How JPEGs of training images are decoded: whole (full), or at 1/2, 1/4 or 1/8 of their sides where no crop is
    then smaller than the model's image (reduced), or where the crop that was drawn is not (crop); photographs of some
    megapixels are read several times as fast. Or by the GPU, in a batch (device, with --resize tensor; not measured).
    The pixels are other ones, so compare runs of one choice (docs/performance.md, docs/gpu.md)."""
    resize: Annotated[Resize, BASIC] = "pillow"
    """What resizes crops: Pillow, as the official code, or torch's kernel for bytes, 1.5 times as fast in a loader
    process, of nearly the same pixels (as of classification)."""
    flip: Annotated[bool, BASIC] = True
    """Flip crops horizontally half of the time."""
    repeats: Annotated[int, BASIC] = 1
    """Crops, each with its own mask, of every image that is loaded. batch_size counts loaded images, so a step trains
    on batch_size * repeats crops, and so does an epoch."""

    resume_from: Annotated[str | None, BASIC, FILE] = None
    """A checkpoint of the official code (checkpoint-N.pth) that the run goes on from: encoder, decoder, AdamW's state
    and the number of epochs."""

    @property
    def encoder(self) -> ViTConfig:
        """The backbone with the positions that were asked for."""
        return self.backbone if self.position is None else replace(self.backbone, position=self.position)

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no autoencoder."""
        check_crop_scale(self.crop_scale)
        for name in ("repeats", "decoder_depth", "pca_components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.decoder_heads < 1 or self.decoder_dim % self.decoder_heads:
            raise ValueError(
                f"decoder_dim {self.decoder_dim} is not divisible by decoder_heads {self.decoder_heads}; change one."
            )
        self._refuse_what_has_no_effect()
        self.check_channels(self.backbone.in_chans)
        refuse_of_rgb(
            self.backbone.in_chans,
            target=(self.target if self.target == "tokens" else None, "--target normalised, pixels or pca"),
            augmentation=(
                self.augmentation if self.augmentation == "color_jitter" else None,
                "--augmentation random_crop, fixed_crop or none",
            ),
            resize=(None if self.resize == "pillow" else self.resize, "--resize pillow"),
            decode=(None if self.decode == "full" else self.decode, "--decode full"),
            resume_from=(self.resume_from, "--init, which takes the encoder alone"),
            augment_function=(self.run.augment_function, "--augment-function None"),
        )
        check_decode(self.decode, self.resize, self.run.augment_function)

    def _refuse_what_has_no_effect(self) -> None:
        """Raise ValueError, since an arm of a study would be a copy of another."""
        if self.tokenizer is not None and self.target != "tokens":
            raise ValueError(f"a tokenizer was given, and the target is {self.target!r}; add --target tokens.")
        usual = {item.name: item.default for item in fields(self)}
        for name, needed, has in (
            ("pca_components", "target pca", self.target == "pca"),
            ("crop_scale", "a crop of random scale", self.augmentation in ("random_crop", "color_jitter")),
            ("decode", "augmentation random_crop", self.augmentation == "random_crop"),
            ("resize", "augmentation random_crop", self.augmentation == "random_crop"),
            ("flip", "an augmentation", self.augmentation != "none"),
        ):
            if not has and getattr(self, name) != usual[name]:
                raise ValueError(
                    f"{name} {getattr(self, name)} has no effect with target {self.target} and augmentation "
                    f"{self.augmentation}: it needs {needed}."
                )
