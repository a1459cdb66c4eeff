"""Options of MAE pre-training."""

from dataclasses import dataclass

from backbones.config import ViTConfig
from engine.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """The encoder, the decoder and how they are trained (MAE, section 3 and appendix A.1)."""

    backbone: ViTConfig
    """Encoder; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    val_split: str = "val"
    """Folder of the validation images, beside train/."""
    mask_ratio: float = 0.75
    """Share of patches hidden from the encoder."""
    decoder_dim: int = 512
    """Width of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    normalise_target: bool = True
    """Predict pixels normalised by the mean and deviation of their own patch."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: bool = True
    """Flip horizontally half of the time."""
