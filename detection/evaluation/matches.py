"""Which detections of one image hit which objects, by COCO's rule (COCOeval's `evaluateImg`, area `all`), or LVIS's.

In the order of their scores, each detection takes the object of its class with the largest IoU among those still free,
at ten thresholds apart from one another; one that finds none but lies on a crowd is left out of the count. The result
is what `metrics.coco_ap` makes AP of.

LVIS (arXiv 1908.03195, section 3.1) annotates an image for some classes alone: detections of the others are dropped,
and of a class of which not all objects are annotated, those that find none are left out.

Axis letters: D detections of one class, G its objects (crowds last), T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pycocotools.mask as rle

from metrics.coco_ap import THRESHOLDS, ImageMatches

Kind = Literal["bbox", "segm"]
KINDS: tuple[Kind, ...] = ("bbox", "segm")
IOU_T = np.linspace(0.5, 0.95, THRESHOLDS)
MOST_PER_CLASS = 100  # detections of a class in an image that COCO's protocol looks at
MOST_OF_LVIS = 300  # detections in an image, of all classes, that LVIS's protocol looks at
BITS_T = 1 << np.arange(THRESHOLDS)


@dataclass(frozen=True)
class Annotated:
    """For which classes LVIS annotates an image, beside those of its objects; ids of categories or class numbers."""

    absent: frozenset[Any]
    """Known to have no object."""
    partial: frozenset[Any]
    """Not all objects are annotated."""


def compressed(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """Return polygons or run lengths of either form as compressed run lengths."""
    if isinstance(segmentation, list):
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], list):
        packed: dict[str, Any] = rle.frPyObjects(segmentation, height, width)
        return packed
    given: dict[str, Any] = segmentation
    return given


def image_matches(
    ground_truth: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
    kind: Kind,
    annotated: Annotated | None = None,
) -> ImageMatches:
    """Return the matches of one image's detections, by LVIS's rule where there is an `annotated`.

    Both are in COCO's form with `category_id` a class number from 0; masks as compressed run lengths.
    """
    most = MOST_PER_CLASS
    if annotated is not None:
        most = MOST_OF_LVIS
        detections = sorted(detections, key=lambda item: -item["score"])[:most]
    objects: dict[int, list[dict[str, Any]]] = {}
    for annotation in ground_truth:
        objects.setdefault(annotation["category_id"], []).append(annotation)
    found: dict[int, list[dict[str, Any]]] = {}
    for detection in detections:
        if annotated is None or detection["category_id"] in objects or detection["category_id"] in annotated.absent:
            found.setdefault(detection["category_id"], []).append(detection)
    counts = [[number, sum(not a.get("iscrowd") for a in items)] for number, items in sorted(objects.items())]
    rows: list[list[float]] = []
    for number, items in sorted(found.items()):
        ranked = sorted(items, key=lambda item: -item["score"])[:most]
        hits, left_out = _match(objects.get(number, []), ranked, kind)
        if annotated is not None and number in annotated.partial:
            left_out = BITS_T.sum() - hits
        rows += [
            [number, item["score"], hit, out]
            for item, hit, out in zip(ranked, hits.tolist(), left_out.tolist(), strict=True)
        ]
    return {"objects": [count for count in counts if count[1]], "detections": rows}


def _match(
    objects: Sequence[dict[str, Any]], ranked: Sequence[dict[str, Any]], kind: Kind
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits of the thresholds at which each detection hits an object, and a crowd."""
    hit_DT = np.zeros((len(ranked), THRESHOLDS), bool)
    left_out_DT = np.zeros_like(hit_DT)
    if objects:
        objects = sorted(objects, key=lambda a: bool(a.get("iscrowd")))
        crowd_G = np.array([bool(a.get("iscrowd")) for a in objects])
        key = "bbox" if kind == "bbox" else "segmentation"
        shapes: list[Any] = [[item[key] for item in side] for side in (ranked, objects)]
        if kind == "bbox":
            shapes = [np.array(side, np.float64) for side in shapes]
        iou_DG = rle.iou(*shapes, crowd_G.astype(np.uint8))
        free_TG = np.ones((THRESHOLDS, len(objects)), bool)
        for number in np.flatnonzero(iou_DG.max(axis=1) >= IOU_T[0]):
            iou_G = iou_DG[number]
            match_TG = free_TG & (iou_G >= np.minimum(IOU_T, 1 - 1e-10)[:, None])
            real_TG = match_TG & ~crowd_G
            hit_DT[number] = real_TG.any(axis=1)
            left_out_DT[number] = ~hit_DT[number] & match_TG.any(axis=1)
            # of equal IoUs COCOeval takes the last
            best_T = len(objects) - 1 - np.where(real_TG, iou_G, -1.0)[:, ::-1].argmax(axis=1)
            taken = np.flatnonzero(hit_DT[number])
            free_TG[taken, best_T[taken]] = False
    return hit_DT @ BITS_T, left_out_DT @ BITS_T
