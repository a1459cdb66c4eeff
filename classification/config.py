"""Options of classification."""

from dataclasses import dataclass

from backbones.config import ViTConfig
from engine.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Training-time augmentation; evaluation resizes and crops the centre."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: bool = True
    """Flip horizontally half of the time."""
    randaugment: str | None = None
    """timm's RandAugment, for instance `rand-m9-mstd0.5-inc1`."""
    erase: float = 0.0
    """Probability of random erasing, filled with noise per pixel."""
    mixup: float = 0.0
    """Beta parameter of mixup."""
    cutmix: float = 0.0
    """Beta parameter of cutmix; with mixup too, each batch takes one of them."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """A ViT, its head and how they are trained."""

    backbone: ViTConfig
    """Architecture; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    augment: Augmentation
    """Training-time augmentation."""
    val_split: str = "val"
    """Folder of the validation images, beside train/."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, rising linearly from 0."""
    head_std: float = 2e-5
    """Standard deviation of the head's initial weights (MAE's fine-tuning code)."""
    crop_share: float = 224 / 256
    """Evaluation resizes the shorter side to resolution / crop_share and crops the centre."""
