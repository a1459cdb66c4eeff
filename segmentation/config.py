"""Options of segmentation."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from backbones.config import ViTConfig, blocks_at_depth
from engine.channels import ChannelStatistics, refuse_of_rgb
from engine.config import BASIC, COMPUTED, LabelFraction, RunConfig

LayoutName = Literal["ade20k", "cityscapes", "voc", "coco_stuff", "folder"]

HeadKind = Literal["upernet", "linear", "eomt"]
WeightDecayFree = Literal["vectors_and_embeddings", "vectors", "nothing"]
UPERNET_LEVELS = 4
MOST_CHANNELS = 512  # CV_CN_MAX


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What turns the ViT into classes: UPerNet's two heads or a linear map on its maps, or queries in its blocks."""

    kind: HeadKind = "upernet"
    """UPerNet with an auxiliary head; a batch norm and a 1 x 1 convolution on the maps side by side; or EoMT (arXiv
    2503.19108), whose queries go through the ViT's last blocks and say a class and a mask each."""
    channels: int = 512
    """Width of the UPerNet head (arXiv 1807.10221); a linear head has none."""
    aux_channels: int = 256
    """Width of UPerNet's auxiliary FCN head on the third map."""
    dropout: float = 0.1
    """Share of channels dropped before the last convolution of a head."""
    aux_weight: float = 0.4
    """Weight of the auxiliary loss."""
    queries: int = 100
    """EoMT's learned queries. Each finds one class and its mask, or nothing; an image has fewer classes."""
    query_blocks: int = 4
    """Last blocks of the ViT that EoMT's queries go through: tue-mps/eomt has 3 of 12, 4 of 24, 5 of 40."""
    points: int = 12544
    """Where EoMT's masks are compared with the true ones: 112 x 112 random points (arXiv 2112.01527)."""
    class_weight: float = 2.0
    """Weight of the cross-entropy of EoMT's queries; this and the next are Mask2Former's."""
    mask_weight: float = 5.0
    """Weight of the binary cross-entropy of EoMT's masks."""
    dice_weight: float = 5.0
    """Weight of the dice loss of EoMT's masks."""
    no_object_weight: float = 0.1
    """Weight of `no object` among the classes of EoMT's cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class SlideConfig:
    """Evaluation by overlapping square windows of the training crop's size."""

    stride: int
    """Pixels from window to window."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(LabelFraction, ChannelStatistics):
    """A ViT under UPerNet, its crops and how it is trained."""

    backbone: ViTConfig
    """Architecture; its image_size is the training crop."""
    out_indices: tuple[int, ...]
    """Blocks (0-based) whose output the head sees, four for UPerNet, finest first; the last must be the last block.
    EoMT, which works in the blocks, has that one alone."""
    head: HeadConfig
    """UPerNet, a linear map, or EoMT."""
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
    or without (`vectors`), as in the code behind the published results: BEiT's and mmseg's mean to exempt them. EoMT's
    code exempts nothing."""
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
        """Raise ValueError for out_indices that the head has no place for, a head that the ViT has no place for, a
        fraction that is none, and what images of other than three channels have no use for."""
        self.check_fraction()
        self.check_channels(self.backbone.in_chans)
        if self.backbone.in_chans > MOST_CHANNELS:
            raise ValueError(
                f"in_chans is {self.backbone.in_chans}; segmentation takes {MOST_CHANNELS} at most, as OpenCV resizes."
            )
        refuse_of_rgb(
            self.backbone.in_chans,
            layout=(None if self.layout in ("ade20k", "folder") else self.layout, "--layout ade20k or folder"),
            augment_function=(self.run.augment_function, "--augment-function None"),
        )
        if self.head.kind == "upernet" and len(self.out_indices) != UPERNET_LEVELS:
            raise ValueError(
                f"out_indices {list(self.out_indices)}: UPerNet has {UPERNET_LEVELS} levels; name as many blocks."
            )
        if self.head.kind == "eomt":
            self._check_eomt()

    def _check_eomt(self) -> None:
        """Raise ValueError where queries have no place, or nothing to do."""
        last = self.backbone.depth - 1
        if self.out_indices != (last,):
            raise ValueError(f"out_indices {list(self.out_indices)}: EoMT reads the last block alone; name {last}.")
        if self.freeze_backbone:
            raise ValueError(
                "freeze_backbone with the head eomt: its queries go through the ViT's own blocks, which must learn it; "
                "a head on frozen features is linear."
            )
        numbers = {name: getattr(self.head, name) for name in ("queries", "query_blocks", "points")}
        if low := [f"{name} {value}" for name, value in numbers.items() if value < 1]:
            raise ValueError(f"head {', '.join(low)}: EoMT needs 1 or more.")

    def following(self, recipe: "SegmentationConfig") -> "SegmentationConfig":
        """Return it with `out_indices` at the same shares of the depth, where the recipe's are left and the depth is
        not."""
        old, new = recipe.backbone.depth, self.backbone.depth
        if self.out_indices != recipe.out_indices or new == old:
            return self
        return replace(self, out_indices=blocks_at_depth(self.out_indices, old, new))
