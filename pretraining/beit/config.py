"""Options of BEiT pre-training."""

from dataclasses import dataclass
from typing import Annotated

from backbones.config import Grid, ViTConfig
from backbones.weights.normalisation import Normalisation
from classification.config import check_crop_scale
from engine.channels import refuse_channels
from engine.config import BASIC, COMPUTED, FILE, FeatureProbes, RunConfig, UnlabelledSplits
from pretraining.mae.config import TokenizerKind


def check_blocks(grid: Grid, *, masked: int, smallest: int, least_aspect: float) -> None:
    """Raise ValueError for numbers by which no grid of patches can be masked."""
    patches = grid[0] * grid[1]
    if not 0 < masked < patches:
        raise ValueError(
            f"masked_patches is {masked} and the ViT has {grid[0]} x {grid[1]} = {patches} patches; mask at least 1 "
            f"and leave at least 1 visible (BEiT masks 75 of 196, here about {round(patches * 75 / 196)})."
        )
    if not 1 <= smallest <= masked:
        raise ValueError(f"min_block is {smallest}; it must be from 1 to the {masked} masked_patches.")
    if not 0 < least_aspect <= 1:
        raise ValueError(f"min_aspect is {least_aspect}; it must be above 0 and at most 1 (BEiT's is 0.3).")


@dataclass(frozen=True, kw_only=True)
class BEiTConfig(UnlabelledSplits, FeatureProbes):
    """The encoder, the tokenizer, the masking and how they are trained (BEiT, arXiv 2106.08254, appendix D)."""

    backbone: ViTConfig
    """Encoder; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    statistics: Annotated[bool, BASIC] = False
    """Normalise pixels with the mean and std of the training images (pretraining/statistics.py)."""
    normalisation: Annotated[Normalisation | None, COMPUTED] = None
    """What that computed; None is ImageNet's, or what the initial weights state."""
    tokenizer: Annotated[str | None, BASIC, FILE] = None
    """The tokenizer's file (or folder: dall_e), which a recipe cannot know."""
    tokenizer_kind: Annotated[TokenizerKind, BASIC] = "own"
    """`own` is a tokenizer.safetensors of this project, `dall_e` the folder of OpenAI's encoder.pkl and decoder.pkl."""
    token_size: Annotated[tuple[int, int], BASIC] = (112, 112)
    """Height and width in pixels of the image that the tokenizer sees; it must give one token per patch."""
    masked_patches: Annotated[int, BASIC] = 75
    """Patches masked in every image."""
    min_block: Annotated[int, BASIC] = 16
    """Least area of a masked rectangle in patches, while that many are left to mask."""
    min_aspect: float = 0.3
    """Least ratio of a rectangle's sides."""
    drop_path: Annotated[float, BASIC] = 0.1
    """Stochastic depth of the last block, rising linearly from 0."""
    crop_scale: Annotated[tuple[float, float], BASIC] = (0.08, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: Annotated[bool, BASIC] = True
    """Flip horizontally half of the time."""
    color_jitter: Annotated[float, BASIC] = 0.4
    """Largest relative change of brightness, contrast and saturation; 0 changes none."""

    def __post_init__(self) -> None:
        """Raise ValueError for a mask that the ViT's grid has no room for, and for a ViT that attends in windows."""
        check_crop_scale(self.crop_scale)
        refuse_channels(self.backbone.in_chans, "BEiT")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path:g}; it must be at least 0 (off) and below 1.")
        if self.color_jitter < 0:
            raise ValueError(f"color_jitter is {self.color_jitter:g}; it must not be negative (0 changes no colour).")
        check_blocks(
            self.backbone.grid, masked=self.masked_patches, smallest=self.min_block, least_aspect=self.min_aspect
        )
        if self.backbone.window_size:
            raise ValueError("BEiT pre-trains with attention over the whole image; set window_size to 0.")
