"""COCO's detection metrics (cocodataset.org, "Detection evaluation") by faster-coco-eval, in per cent."""

from collections.abc import Sequence
from typing import Any, Literal

from faster_coco_eval import COCO, COCOeval_faster

# positions in COCO's list of summary numbers
SUMMARY = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}


def coco_metrics(
    ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, kind: Literal["bbox", "segm"]
) -> dict[str, float]:
    """Return `ap`, `ap50`, ... from 0 to 100; a size that no object has is left out.

    `detections` are in COCO's results form over all images; none at all is an AP of 0.
    """
    # for masks the area, which the size ranges go by, is the mask's only where no box is given
    keys = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
    found = [{key: detection[key] for key in keys} for detection in detections]
    truth = COCO(ground_truth, use_deepcopy=True)
    evaluation = COCOeval_faster(truth, truth.loadRes(found), kind, print_function=_quiet)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = {name: float(evaluation.stats[position]) for name, position in SUMMARY.items()}
    return {name: 100 * value for name, value in values.items() if value >= 0}


def _quiet(*_: Any) -> None:
    """Print nothing."""
