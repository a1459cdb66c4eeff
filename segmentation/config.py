"""Options of segmentation."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from backbones.config import ViTConfig
from engine.config import BASIC, COMPUTED, LabelFraction, RunConfig

LayoutName = Literal["ade20k", "cityscapes", "voc", "coco_stuff", "folder"]

HeadKind = Literal["upernet", "linear"]
WeightDecayFree = Literal["vectors_and_embeddings", "vectors"]
UPERNET_LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What turns the ViT's maps into classes: UPerNet's two heads, or one linear map."""

    kind: HeadKind = "upernet"
    """UPerNet with an auxiliary head, or a batch norm and a 1 x 1 convolution on the maps side by side."""
    channels: int = 512
    """Width of the UPerNet head (arXiv 1807.10221); a linear head has none."""
    aux_channels: int = 256
    """Width of UPerNet's auxiliary FCN head on the third map."""
    dropout: float = 0.1
    """Share of channels dropped before the last convolution of a head."""
    aux_weight: float = 0.4
    """Weight of the auxiliary loss."""


@dataclass(frozen=True, kw_only=True)
class SlideConfig:
    """Evaluation by overlapping square windows of the training crop's size."""

    stride: int
    """Pixels from window to window."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(LabelFraction):
    """A ViT under UPerNet, its crops and how it is trained."""

    backbone: ViTConfig
    """Architecture; its image_size is the training crop."""
    out_indices: tuple[int, ...]
    """Blocks (0-based) whose output the head sees, four for UPerNet, finest first; the last must be the last block."""
    head: HeadConfig
    """UPerNet, or a linear map."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    resize: tuple[int, int]
    """Longer and shorter side in pixels that images are fitted into; metrics are taken at their own size."""
    resize_ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random factor of `resize` in training."""
    cat_max_ratio: float = 0.75
    """A crop is drawn again, up to ten times, while one class covers more than this share of it."""
    class_token: Annotated[bool, COMPUTED] = True
    """Whether the ViT has a class token, which the head does not read; without one where the weights have none."""
    drop_path: float = 0.1
    """Stochastic depth of the last block, rising linearly from 0."""
    freeze_backbone: bool = False
    """Train the head alone, on the ViT's features as they are; the ViT stays in eval mode."""
    no_weight_decay: WeightDecayFree = "vectors_and_embeddings"
    """What is free of weight decay: biases, norms and layer scales, and the position table and class token with them,
    or without (`vectors`), as in the code behind the published results: BEiT's and mmseg's mean to exempt them."""
    slide: SlideConfig | None = None
    """Evaluate by sliding windows; None evaluates whole images."""
    boundary_iou: bool = False
    """Report boundary_miou too: mIoU of what lies within 2% of the image's diagonal of a contour."""
    layout: Annotated[LayoutName, BASIC] = "ade20k"
    """How the data set lies on disk (segmentation/data/layout.py); `folder` is images, index PNGs and classes.txt."""
    train_split: Annotated[str | None, BASIC] = None
    """Split to train on; the layout's own unless given."""
    val_split: Annotated[str | None, BASIC] = None
    """Split to evaluate on; the layout's own unless given."""
    test_scales: tuple[float, ...] = (1.0,)
    """Factors of `resize` that images are also seen at in evaluation; predictions are averaged over them."""
    test_flip: bool = False
    """See every image mirrored too in evaluation."""

    def __post_init__(self) -> None:
        """Raise ValueError for out_indices that the head has no place for, and a fraction that is none."""
        self.check_fraction()
        if self.head.kind == "upernet" and len(self.out_indices) != UPERNET_LEVELS:
            raise ValueError(
                f"out_indices {list(self.out_indices)}: UPerNet has {UPERNET_LEVELS} levels; name as many blocks."
            )

    def following(self, recipe: "SegmentationConfig") -> "SegmentationConfig":
        """Return it with `out_indices` at the same shares of the depth, where the recipe's are left and the depth is
        not."""
        old, new = recipe.backbone.depth, self.backbone.depth
        if self.out_indices != recipe.out_indices or new == old:
            return self
        return replace(self, out_indices=blocks_at_depth(self.out_indices, old, new))


def blocks_at_depth(blocks: tuple[int, ...], old: int, new: int) -> tuple[int, ...]:
    """Return blocks (0-based) of `old` as those at the same shares of `new` blocks, rounded half up; the last stays so.

    Blocks 3, 5, 7 and 11 of 12 are 7, 11, 15 and 23 of 24, as mmsegmentation has them.
    """
    return tuple((2 * (block + 1) * new + old) // (2 * old) - 1 for block in blocks)
