"""What may be done to a trained detector's predictions at test time: mirrored and scaled copies, and soft suppression.

Copies: detectron2's GeneralizedRCNNWithTTA, with boxes of all copies merged by suppression and masks averaged. Where it
does not fit, it is replaced: the copies are made from the image as it was read (detectron2 resamples the resized one),
and a copy larger than the square that the ViT's position table is made for is refused, so that scales go up to 1.

Soft suppression (Soft-NMS, arXiv 1704.04503): a box that overlaps a better one of its class loses score rather than its
place. It takes two passes of the backbone, one for boxes and one for the masks of those that stay.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import box_iou

from detection.config import DetectionConfig, HeadsConfig, SoftNms, TestConfig
from detection.data.mapping import FitSquare

LEAST_SCORE = 1e-3  # of a box that soft suppression keeps


class Copies:
    """The copies of an image that is as it was read, in the form that GeneralizedRCNNWithTTA asks for."""

    def __init__(self, image_size: int, *, scales: tuple[float, ...], flip: bool) -> None:
        """`scales` are shares of the square of `image_size` pixels. Raises ValueError for others than above 0 to 1."""
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(
                f"test scales {scales}: each must be above 0 and at most 1, the square of {image_size} pixels that the "
                "position table is made for; for larger images take a larger image_size."
            )
        self._sides = [max(1, round(image_size * scale)) for scale in scales]
        self._flips = (False, True) if flip else (False,)

    def __call__(self, sample: dict[str, Any]) -> list[dict[str, Any]]:
        """Return one sample per scale and side, with the `transforms` that made its image."""
        image_HW3 = sample["image"].permute(1, 2, 0).cpu().numpy()
        found = []
        for side in self._sides:
            for flip in self._flips:
                augmented = T.AugInput(image_HW3.copy())
                steps = [FitSquare(side, max_size=side), *([T.RandomFlip(prob=1.0)] if flip else [])]
                transforms = T.AugmentationList(steps)(augmented)
                image_3HW = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
                found.append({**sample, "image": image_3HW, "transforms": transforms})
        return found


class Inference:
    """Samples to detections by a detector in eval mode, as the configuration has it."""

    def __init__(self, model: Any, config: DetectionConfig) -> None:
        plain, side = config.test.plain, config.image_size
        self.image_size = side if plain else None
        """Of the square that samples are scaled into; None takes them as they are, since copies are made of them."""
        self._infer = model if plain else TestTime(model, config.test, heads=config.heads, image_size=side)

    def __call__(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return detectron2's outputs, one per sample."""
        outputs: list[dict[str, Any]] = self._infer(batch)
        return outputs


class TestTime(GeneralizedRCNNWithTTA):
    """A detector as `model(batch)` in eval mode calls it, over copies of each image and with soft suppression."""

    __test__ = False  # not a test, in spite of its name

    def __init__(self, model: Any, config: TestConfig, *, heads: HeadsConfig, image_size: int) -> None:
        """Wrap a detector; its own suppression threshold and most detections are taken over."""
        predictors = model.roi_heads.box_predictor
        own = list(predictors) if isinstance(predictors, torch.nn.ModuleList) else [predictors]
        values = CfgNode()
        values.MODEL = CfgNode({"KEYPOINT_ON": False, "LOAD_PROPOSALS": False, "MASK_ON": model.roi_heads.mask_on})
        values.MODEL.ROI_HEADS = CfgNode({"NUM_CLASSES": model.roi_heads.num_classes})
        values.MODEL.ROI_HEADS.NMS_THRESH_TEST = own[-1].test_nms_thresh
        values.TEST = CfgNode({"DETECTIONS_PER_IMAGE": heads.max_detections})
        copies = Copies(image_size, scales=config.scales, flip=config.flip)
        super().__init__(values, model, copies, batch_size=len(config.scales) * (2 if config.flip else 1))
        self._soft_nms = config.soft_nms
        self._predictors = own
        self._most = heads.max_detections

    def _get_augmented_boxes(self, augmented_inputs: Any, tfms: Any) -> Any:
        with self._unsuppressed() if self._soft_nms != "none" else _nothing():
            return super()._get_augmented_boxes(augmented_inputs, tfms)

    def _merge_detections(self, all_boxes: Tensor, all_scores: Any, all_classes: Any, shape_hw: Any) -> Instances:
        if self._soft_nms == "none":
            return super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        boxes = Boxes(all_boxes)
        boxes.clip(shape_hw)
        score_N = torch.tensor([float(score) for score in all_scores], device=all_boxes.device)
        class_N = torch.tensor([int(number) for number in all_classes], dtype=torch.long, device=all_boxes.device)
        score_N = soft_scores(boxes.tensor, score_N, class_N, kind=self._soft_nms)
        best = score_N.argsort(descending=True)[: self._most]
        best = best[score_N[best] >= LEAST_SCORE]
        merged = Instances(shape_hw)
        merged.pred_boxes, merged.scores, merged.pred_classes = boxes[best], score_N[best], class_N[best]
        return merged

    @contextmanager
    def _unsuppressed(self) -> Iterator[None]:
        """Let every box above the score threshold through."""
        old = [(p.test_nms_thresh, p.test_topk_per_image) for p in self._predictors]
        for predictor in self._predictors:
            predictor.test_nms_thresh, predictor.test_topk_per_image = 1.0, -1
        try:
            yield
        finally:
            for predictor, (threshold, most) in zip(self._predictors, old, strict=True):
                predictor.test_nms_thresh, predictor.test_topk_per_image = threshold, most


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def soft_scores(
    box_N4: Tensor, score_N: Tensor, class_N: Tensor, *, kind: SoftNms, sigma: float = 0.5, threshold: float = 0.3
) -> Tensor:
    """Return the scores after soft suppression within each class (arXiv 1704.04503, equations 2 and 3; its defaults).

    `linear` multiplies by 1 - IoU where the IoU with a better box is above `threshold`, `gaussian` by
    exp(-IoU^2 / sigma) for every better box; the best remaining box goes first, as in the paper's figure 2.
    """
    result_N = score_N.clone()
    for number in class_N.unique().tolist():
        place_M = torch.nonzero(class_N == number)[:, 0]
        iou_MM = box_iou(box_N4[place_M], box_N4[place_M])
        left_M = score_N[place_M].clone()
        for _ in range(len(place_M)):
            best = int(left_M.argmax())
            if left_M[best] <= 0:
                break
            result_N[place_M[best]] = left_M[best]
            iou_M = iou_MM[best]
            if kind == "linear":
                factor_M = torch.where(iou_M > threshold, 1 - iou_M, torch.ones_like(iou_M))
            else:
                factor_M = torch.exp(-(iou_M**2) / sigma)
            left_M *= factor_M
            left_M[best] = -math.inf
        result_N[place_M[left_M > -math.inf]] = 0.0
    return result_N
