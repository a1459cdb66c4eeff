"""Confusion counts per image, and mIoU, mAcc and aAcc from their sum, as mmseg's IoUMetric computes them.

Axis letters: C classes (rows the label, columns the prediction), H x W pixels.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from segmentation.labels import IGNORED

Triplets = list[list[int]]  # [label, prediction, pixels], where pixels are above 0


def confusion(label_HW: np.ndarray, prediction_HW: np.ndarray, num_classes: int) -> Triplets:
    """Return how often each class was taken for which, ignored pixels left out."""
    known = label_HW != IGNORED
    pairs = label_HW[known].astype(np.int64) * num_classes + prediction_HW[known]
    counts = np.bincount(pairs, minlength=num_classes**2)
    found = np.flatnonzero(counts)
    return [[int(p) // num_classes, int(p) % num_classes, int(counts[p])] for p in found]


def add_up(parts: Iterable[Sequence[Sequence[int]]], num_classes: int) -> np.ndarray:
    """Return the summed counts as a matrix (C, C)."""
    total_CC = np.zeros((num_classes, num_classes), dtype=np.int64)
    for triplets in parts:
        for label, prediction, pixels in triplets:
            total_CC[label, prediction] += pixels
    return total_CC


def scores(total_CC: np.ndarray) -> dict[str, float]:
    """Return miou, macc and aacc in percent.

    A class that is neither labelled nor predicted has no IoU, one that is not labelled has no accuracy; the
    means are over the others. Raises ValueError where no pixel is labelled.
    """
    hit_C, label_C, prediction_C = total_CC.diagonal(), total_CC.sum(axis=1), total_CC.sum(axis=0)
    if not label_C.any():
        raise ValueError("no pixel of the validation images is labelled, so there is nothing to score.")
    with np.errstate(invalid="ignore"):
        iou_C = hit_C / (label_C + prediction_C - hit_C)
        accuracy_C = hit_C / label_C
    return {
        "miou": 100 * float(np.nanmean(iou_C)),
        "macc": 100 * float(np.nanmean(accuracy_C)),
        "aacc": 100 * float(hit_C.sum() / label_C.sum()),
    }
