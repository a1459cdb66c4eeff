"""Mask R-CNN and Cascade Mask R-CNN on a pyramid of a ViT.

Built as detectron2's `common/models/mask_rcnn_vitdet.py`, and the cascade and LVIS files of `projects/ViTDet/configs`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from torch import nn

from backbones.weights.normalisation import Normalisation
from detection.config import HeadsConfig
from detection.model.backbone import ViTFPN, ViTPyramid
from detection.model.detector import Detector
from detection.model.norm import NORMS
from detection.model.roi_align import ROIAlign

BOX_CELLS, MASK_CELLS = 7, 14
ASPECT_RATIOS = [0.5, 1.0, 2.0]
# overlap with an object that makes a proposal a positive, and weights of the four box targets, stage by stage
STAGES = ((0.5, (10.0, 10.0, 5.0, 5.0)), (0.6, (20.0, 20.0, 10.0, 10.0)), (0.7, (30.0, 30.0, 15.0, 15.0)))
FEDERATED_CLASSES = 50  # that a batch's loss looks at, at least; detectron2's default
FREQUENCY_POWER = 0.5  # a class is sampled as a negative by this power of the number of its images


def mask_rcnn(
    backbone: ViTPyramid | ViTFPN,
    *,
    heads: HeadsConfig,
    num_classes: int,
    masks: bool,
    normalisation: Normalisation,
    class_images: Sequence[int] = (),
) -> Detector:
    """Return the detector with random heads; without `masks` it has no mask head (Faster R-CNN).

    Images are RGB from 0 to 255; `normalisation` is in units of 0 to 1. `class_images`, which the federated loss alone
    asks for, is the number of training images that have each class.
    """
    return Detector(
        backbone=backbone,
        proposal_generator=_proposals(backbone, heads),
        roi_heads=_regions(
            backbone,
            heads,
            num_classes=num_classes,
            masks=masks,
            scoring=_federated(num_classes, class_images) if heads.classifier == "federated" else {},
        ),
        pixel_mean=[255 * value for value in normalisation.mean],
        pixel_std=[255 * value for value in normalisation.std],
        input_format="RGB",
    )


def _proposals(backbone: Backbone, heads: HeadsConfig) -> RPN:
    levels = backbone.output_shape()
    strides = [level.stride for level in levels.values()]
    return RPN(
        in_features=list(levels),
        head=StandardRPNHead(
            in_channels=heads.channels, num_anchors=len(ASPECT_RATIOS), conv_dims=[-1] * heads.rpn_convs
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[heads.anchor_scale * stride] for stride in strides],
            aspect_ratios=ASPECT_RATIOS,
            strides=strides,
            offset=0.0,
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=heads.rpn_samples,
        positive_fraction=0.5,
        pre_nms_topk=heads.pre_nms,
        post_nms_topk=heads.post_nms,
        nms_thresh=0.7,
    )


def _regions(
    backbone: Backbone, heads: HeadsConfig, *, num_classes: int, masks: bool, scoring: dict[str, Any]
) -> StandardROIHeads:
    # the coarsest level proposes regions but is not pooled from, as in FPN (arXiv 1612.03144, section 4.2)
    levels = dict(list(backbone.output_shape().items())[:-1])
    scales = [1.0 / level.stride for level in levels.values()]
    channels = heads.channels

    def pooler(cells: int) -> ROIPooler:
        made = ROIPooler(
            output_size=cells,
            scales=scales,
            sampling_ratio=heads.pool_points,
            pooler_type="ROIAlignV2",
            canonical_box_size=heads.canonical_box,
        )
        made.level_poolers = nn.ModuleList(
            ROIAlign(cells, spatial_scale=scale, sampling_ratio=heads.pool_points, aligned=True) for scale in scales
        )
        return made

    mask_parts = {}
    if masks:
        mask_parts = {
            "mask_in_features": list(levels),
            "mask_pooler": pooler(MASK_CELLS),
            "mask_head": MaskRCNNConvUpsampleHead(
                ShapeSpec(channels=channels, height=MASK_CELLS, width=MASK_CELLS),
                num_classes=1 if heads.class_agnostic else num_classes,
                conv_dims=[channels] * (heads.mask_convs + 1),
                conv_norm=NORMS[heads.norm],
            ),
        }
    shared = {
        "num_classes": num_classes,
        "batch_size_per_image": heads.roi_samples,
        "positive_fraction": 0.25,
        "box_in_features": list(levels),
        "box_pooler": pooler(BOX_CELLS),
        **mask_parts,
    }

    def predictor(weights: tuple[float, float, float, float], *, agnostic: bool) -> FastRCNNOutputLayers:
        return FastRCNNOutputLayers(
            ShapeSpec(channels=heads.box_width),
            box2box_transform=Box2BoxTransform(weights=weights),
            num_classes=num_classes,
            cls_agnostic_bbox_reg=agnostic,
            test_score_thresh=heads.score_threshold,
            test_topk_per_image=heads.max_detections,
            **scoring,
        )

    if heads.cascade:
        return CascadeROIHeads(
            proposal_matchers=[_overlap(overlap) for overlap, _ in STAGES],
            box_heads=[_box_head(heads) for _ in STAGES],
            box_predictors=[predictor(weights, agnostic=True) for _, weights in STAGES],
            **shared,
        )
    overlap, weights = STAGES[0]
    return StandardROIHeads(
        proposal_matcher=_overlap(overlap),
        box_head=_box_head(heads),
        box_predictor=predictor(weights, agnostic=heads.class_agnostic),
        **shared,
    )


def _overlap(threshold: float) -> Matcher:
    return Matcher([threshold], [0, 1], allow_low_quality_matches=False)


def _box_head(heads: HeadsConfig) -> FastRCNNConvFCHead:
    return FastRCNNConvFCHead(
        ShapeSpec(channels=heads.channels, height=BOX_CELLS, width=BOX_CELLS),
        conv_dims=[heads.channels] * heads.box_convs,
        fc_dims=[heads.box_width],
        conv_norm=NORMS[heads.norm],
    )


def _federated(num_classes: int, class_images: Sequence[int]) -> dict[str, Any]:
    if len(class_images) != num_classes:
        raise ValueError(
            f"the federated loss asks for the number of training images of each of {num_classes} classes; "
            f"class_images has {len(class_images)}."
        )
    counts_K = torch.tensor(class_images, device="cpu")
    return {
        "use_sigmoid_ce": True,
        "use_fed_loss": True,
        "get_fed_loss_cls_weights": lambda: counts_K.float() ** FREQUENCY_POWER,
        # no more than there are to sample from
        "fed_loss_num_classes": min(FEDERATED_CLASSES, sum(images > 0 for images in class_images)),
    }
