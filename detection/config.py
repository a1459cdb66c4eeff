"""What a detection run is made of."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from backbones.config import ViTConfig
from engine.channels import refuse_channels
from engine.config import BASIC, FILE, WITHOUT, LabelFraction, RunConfig

Pyramid = Literal["sfp", "fpn"]
Norm = Literal["layer", "batch"]
Classifier = Literal["softmax", "federated"]


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Widths and sample counts of Mask R-CNN (arXiv 1703.06870); ViTDet's (arXiv 2203.16527) by default."""

    channels: int = 256
    """Channels of the pyramid and of every convolution in the heads."""
    rpn_convs: int = 2
    """Convolutions of the region proposal head."""
    box_convs: int = 4
    """Convolutions of the box head, each with layer norm."""
    box_width: int = 1024
    """Width of the box head's fully connected layer."""
    mask_convs: int = 4
    """Convolutions of the mask head before its upsampling, each with layer norm."""
    cascade: bool = False
    """Three box heads, each on the boxes of the one before, at overlaps of 0.5, 0.6 and 0.7 (arXiv 1712.00726); their
    boxes are class-agnostic."""
    norm: Norm = "layer"
    """Norm of the convolutions in the FPN, the box head and the mask head: layer norm over channels, or batch norm over
    all processes (Li et al. 2021). ViTDet's simple pyramid has layer norm throughout."""
    classifier: Classifier = "softmax"
    """How classes are scored: one of all by softmax, or each by itself by sigmoid, trained on the classes that occur in
    the batch and a sample of the others (federated loss, arXiv 2103.07461), as annotations of LVIS ask for."""
    class_agnostic: bool = False
    """One box and one mask per proposal instead of one for each class: learns from few labels."""
    anchor_scale: float = 8.0
    """Side of a level's square anchor over its stride."""
    canonical_box: float = 224.0
    """Side in pixels of the smallest boxes that are pooled from the level of stride 16 (FPN, equation 1)."""
    pool_points: int = 0
    """Points per side that a pooled cell averages; 0 takes as many as the box has map cells in it."""
    rpn_samples: int = 256
    """Anchors per image that the proposal losses look at."""
    roi_samples: int = 512
    """Proposals per image that the box losses look at."""
    pre_nms: tuple[int, int] = (2000, 1000)
    """Proposals kept per level before suppression, in training and in evaluation."""
    post_nms: tuple[int, int] = (1000, 1000)
    """Proposals kept per image after suppression, in training and in evaluation."""
    score_threshold: float = 0.05
    """Detections below this score are not reported."""
    max_detections: int = 100
    """Detections reported per image, the best first; COCO's protocol looks at 100."""


def check_patch(size: int) -> None:
    """Raise ValueError for patches that no pyramid of strides 2 ** level can stand on."""
    if size < 4 or size & (size - 1):
        raise ValueError(
            f"patch_size {size} makes no pyramid of strides 2 ** level, which takes 8 or 16; --init-resize-patch "
            "resamples the patches of such weights to those of the recipe."
        )


Exemption = Literal["vectors_and_embeddings", "block_norms_and_position", "nothing"]
SoftNms = Literal["none", "linear", "gaussian"]


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """What is done to images and predictions in evaluation beside one pass over each image
    (detection.model.test_time)."""

    __test__ = False  # not a test, in spite of its name

    flip: bool = False
    """Look at each image mirrored, too."""
    scales: tuple[float, ...] = (1.0,)
    """Look at each image at these shares of `image_size`, at most 1."""
    soft_nms: SoftNms = "none"
    """Boxes that overlap a better one of their class lose score rather than their place (Soft-NMS)."""

    @property
    def plain(self) -> bool:
        """One pass over each image and the usual suppression."""
        return self == TestConfig()


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(LabelFraction):
    """Mask R-CNN or Cascade Mask R-CNN on a ViT."""

    backbone: Annotated[ViTConfig, f"{WITHOUT}image_size relative_size"]
    """Architecture of the ViT; its image size is replaced by `image_size`."""
    image_size: int
    """Side in pixels of the square that images are scaled into and padded to."""
    position_size: int | None = None
    """Side in pixels of the images that the position table is kept for, which is resized in every pass (ViTDet: 224, as
    pre-trained). None resizes the table once, to `image_size`, and trains it at that size."""
    pyramid: Pyramid = "sfp"
    """Where the maps of several resolutions come from: `sfp`, ViTDet's simple feature pyramid from the last block, or
    `fpn`, an FPN over the maps of four blocks (Li et al. 2021, arXiv 2111.11429)."""
    scale_jitter: tuple[float, float] = (0.1, 2.0)
    """Range of the random scale in training, 1 being the image that fills the square (large-scale jitter)."""
    flip: bool = True
    """Mirror half of the training images left to right."""
    empty_images: Annotated[bool, BASIC] = False
    """Train on images without any annotation too, in which everything is background (detectron2's
    DATALOADER.FILTER_EMPTY_ANNOTATIONS turned off); images with crowds alone stay left out."""
    repeat_threshold: float = 0.0
    """Images with a class that fewer than this share of images has come more than once in an epoch (LVIS,
    arXiv 1908.03195, appendix B.2, takes 0.001); 0 repeats none."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    freeze_backbone: bool = False
    """Train pyramid and heads alone, on the ViT's features as they are."""
    no_weight_decay: Exemption = "vectors_and_embeddings"
    """What is free of weight decay: MAE's rule (biases, norms, position table), or detectron2's for ViTDet-B and -L
    (norms of the blocks, position table) and for ViTDet-H (nothing); see backbones.param_groups."""
    heads: HeadsConfig = HeadsConfig()
    """Everything after the ViT."""
    test: TestConfig = TestConfig()
    """Evaluation."""
    train_split: Annotated[str, BASIC] = "train2017"
    """Folder of the training images in the data folder, and name of their annotations."""
    val_split: Annotated[str, BASIC] = "val2017"
    """Folder of the validation images in the data folder, and name of their annotations."""
    train_json: Annotated[str | None, BASIC, FILE] = None
    """Training annotations; None is annotations/instances_<train_split>.json in the data folder."""
    val_json: Annotated[str | None, BASIC, FILE] = None
    """Validation annotations; None is annotations/instances_<val_split>.json in the data folder."""
    run: RunConfig
    """The training run."""

    def __post_init__(self) -> None:
        """Raise ValueError for a fraction of the labels that is none, and stochastic depth of what does not learn."""
        self.check_fraction()
        refuse_channels(self.backbone.in_chans, "detection")
        if self.freeze_backbone and self.drop_path:
            raise ValueError(
                f"freeze_backbone with drop_path {self.drop_path:g}: what does not learn has none; give 0."
            )

    @property
    def architecture(self) -> ViTConfig:
        """The ViT with its tables at their sizes. Raises ValueError for patches that make no pyramid."""
        check_patch(self.backbone.patch_size)
        side, position = self.image_size, self.position_size
        if position is None:
            return self.backbone.at(side, side)
        return replace(self.backbone, image_size=(position, position), relative_size=(side, side))
