"""A detection recipe on fake tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from backbones.weights.normalisation import Normalisation
from detection.config import DetectionConfig
from detection.model.mask_rcnn import BOX_CELLS, MASK_CELLS, STAGES
from detection.task import detector, vit_of
from engine.memory.plan import Plannable


def plannable(config: DetectionConfig, *, num_classes: int, masks: bool) -> Plannable:
    """Return the detector and the dense part of its losses.

    Proposals depend on the data, so the heads see the number of boxes that the recipe samples at most, a quarter of
    them objects, all of the finest map; matching of anchors and suppression are left out.
    """
    model: Any = detector(
        config,
        vit_of(config),
        num_classes=num_classes,
        masks=masks,
        normalisation=Normalisation(),
        class_images=[1] * num_classes,
    )
    side, heads = config.image_size, config.heads

    def loss(images: int) -> Tensor:
        maps = model.backbone(torch.zeros(images, 3, side, side))
        logits, deltas = model.proposal_generator.rpn_head(list(maps.values()))
        losses = [_bce(x) for x in logits] + [F.l1_loss(x.float(), torch.zeros_like(x).float()) for x in deltas]
        finest = next(iter(maps.values()))
        regions = model.roi_heads
        boxes = images * heads.roi_samples
        for stage in range(len(STAGES) if heads.cascade else 1):
            head = regions.box_head[stage] if heads.cascade else regions.box_head
            predictor = regions.box_predictor[stage] if heads.cascade else regions.box_predictor
            scores, moves = predictor(head(_pooled(finest, boxes, BOX_CELLS, config)))
            losses += [
                F.cross_entropy(scores.float(), torch.zeros(boxes, dtype=torch.long)),
                F.l1_loss(moves.float(), torch.zeros_like(moves).float()),
            ]
        if masks:
            losses.append(_bce(regions.mask_head.layers(_pooled(finest, boxes // 4, MASK_CELLS, config))))
        return torch.stack(losses).sum()

    return Plannable(
        model=model,
        run=config.run,
        loss=loss,
        simplified="as many boxes as are sampled at most, a quarter of them objects; no matching, no suppression",
    )


def _pooled(map_BCHW: Tensor, boxes: int, cells: int, config: DetectionConfig) -> Tensor:
    stride = config.image_size / map_BCHW.shape[-1]
    return roi_align(map_BCHW.float(), torch.zeros(boxes, 5), cells, 1 / stride, config.heads.pool_points, True).to(
        map_BCHW.dtype
    )


def _bce(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits).float())
