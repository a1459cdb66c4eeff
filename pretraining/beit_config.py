"""Options of BEiT pre-training."""

from dataclasses import dataclass

from backbones.checkpoint import Normalisation
from backbones.config import ViTConfig
from classification.config import check_crop_scale
from engine.config import RunConfig
from pretraining.beit_masking import check_blocks
from pretraining.tokenizer import Kind


@dataclass(frozen=True, kw_only=True)
class BEiTConfig:
    """The encoder, the tokenizer, the masking and how they are trained (BEiT, arXiv 2106.08254, appendix D)."""

    backbone: ViTConfig
    """Encoder; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    val_split: str = "val"
    """Folder of the validation images, beside train/."""
    statistics: bool = False
    """Normalise pixels with the mean and deviation of the training images (pretraining/statistics.py)."""
    normalisation: Normalisation | None = None
    """What that computed; None is ImageNet's, or what the initial weights state."""
    tokenizer: str | None = None
    """The tokenizer's file (or folder: dall_e), which a recipe cannot know."""
    tokenizer_kind: Kind = "own"
    """`own` is a tokenizer.safetensors of this project, `dall_e` the folder of OpenAI's encoder.pkl and decoder.pkl."""
    trust_tokenizer_pickle: bool = False
    """What the command line said: read DALL-E's pickles, which can run any code. A note of it, which nothing asks."""
    token_size: tuple[int, int] = (112, 112)
    """Height and width in pixels of the image that the tokenizer sees; it must give one token per patch."""
    masked_patches: int = 75
    """Patches hidden in every image."""
    min_block: int = 16
    """Least area of a hidden rectangle in patches, while that many are left to hide."""
    min_aspect: float = 0.3
    """Least ratio of a rectangle's sides."""
    drop_path: float = 0.1
    """Stochastic depth of the last block, rising linearly from 0."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: bool = True
    """Flip horizontally half of the time."""
    color_jitter: float = 0.4
    """Largest relative change of brightness, contrast and saturation; 0 changes none."""

    def __post_init__(self) -> None:
        """Raise ValueError for a mask that the ViT's grid has no room for, and for a ViT that attends in windows."""
        check_crop_scale(self.crop_scale)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path:g}; it must be at least 0 (off) and below 1.")
        if self.color_jitter < 0:
            raise ValueError(f"color_jitter is {self.color_jitter:g}; it must not be negative (0 changes no colour).")
        check_blocks(
            self.backbone.grid, hidden=self.masked_patches, smallest=self.min_block, least_aspect=self.min_aspect
        )
        if self.backbone.window_size:
            raise ValueError("BEiT pre-trains with attention over the whole image; set window_size to 0.")
