"""Confusion counts of an image's pixels, and of those near its boundaries, and the scores of classes in their sum.

Counts equal those of mmseg's IoUMetric. The boundary form follows Boundary IoU (Cheng et al. 2021, arXiv 2103.16562):
a mask's boundary is what lies within a distance of its contour, the frame of the image being a contour too. Theirs
scores instances; the semantic form takes each class of an image as one mask and sums areas over the images before it
divides, as mIoU does.

Axis letters: H x W pixels.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from files.writing import replacing
from metrics.miou import class_scores
from segmentation.data.labels import IGNORED

DISTANCE = 0.02  # of the image's diagonal; section 4 of Boundary IoU
EXACT = 2**24  # pixels; calcHist counts in float32
Rows = list[list[int]]  # [label, prediction, pixels] with pixels above 0


def confusion(label_HW: np.ndarray, prediction_HW: np.ndarray, num_classes: int) -> Rows:
    """Return how often each class was taken for which, ignored pixels left out.

    One two-dimensional histogram of uint8 maps; the row of ignored labels lies above `num_classes`, outside of it.
    """
    label = np.ascontiguousarray(label_HW, dtype=np.uint8).reshape(-1)
    prediction = np.ascontiguousarray(prediction_HW, dtype=np.uint8).reshape(-1)
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    limits = [0, num_classes, 0, num_classes]
    for start in range(0, label.size, EXACT):
        part = [label[start : start + EXACT, None], prediction[start : start + EXACT, None]]
        counts += cv2.calcHist(part, [0, 1], None, [num_classes, num_classes], limits).astype(np.int64)
    found = np.nonzero(counts)
    return [list(row) for row in zip(*(part.tolist() for part in (*found, counts[found])), strict=True)]


def boundary_confusion(label_HW: np.ndarray, prediction_HW: np.ndarray, num_classes: int) -> Rows:
    """Return the counts of boundary pixels; the number `num_classes` stands for `not on a boundary`.

    Ignored pixels are taken out of both maps first, so an ignored region has the same contour in both.
    """
    ignored = label_HW == IGNORED
    label = np.ascontiguousarray(label_HW, dtype=np.uint8)
    prediction = np.where(ignored, IGNORED, prediction_HW).astype(np.uint8)
    distance = max(1, round(DISTANCE * float(np.hypot(*label.shape))))
    parts = [np.where(on_boundary(part, distance), part, num_classes) for part in (label, prediction)]
    parts[0][ignored] = IGNORED
    rows = confusion(parts[0], parts[1], num_classes + 1)
    return [row for row in rows if row[:2] != [num_classes, num_classes]]


def on_boundary(label_HW: np.ndarray, distance: int) -> np.ndarray:
    """Return where a pixel of another class, or the frame, is within `distance` pixels (chessboard), (H, W) bool.

    A window of one value has equal minimum and maximum, so two filters serve all classes at once; they equal
    `distance` erosions of each class's mask by a 3 x 3 square.
    """
    window = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * distance + 1, 2 * distance + 1))
    lowest = cv2.erode(label_HW, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    highest = cv2.dilate(label_HW, window, borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return np.asarray(lowest != highest)


def boundary_miou(total_CC: np.ndarray) -> float:
    """Return the mean IoU of boundaries in percent, from a sum of `boundary_confusion`, whose last class is no class.

    As in mIoU, classes that neither labels nor predictions hold are left out.
    """
    iou_C, _ = class_scores(total_CC)
    return float(np.nanmean(iou_C[:-1]))


def write_per_class(
    path: Path, total_CC: np.ndarray, names: Sequence[str], *, boundary_CC: np.ndarray | None = None
) -> Path:
    """Write number, name, iou and acc in percent, and the pixels labelled, predicted and both, of every class.

    A score that a class does not have (see metrics.miou) is an empty cell. `boundary_CC` adds boundary_iou.
    """
    iou_C, accuracy_C = class_scores(total_CC)
    areas = total_CC.sum(axis=1), total_CC.sum(axis=0), total_CC.diagonal()
    columns = {"iou": iou_C, "acc": accuracy_C}
    if boundary_CC is not None:
        columns["boundary_iou"] = class_scores(boundary_CC)[0][:-1]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", *columns, "labelled", "predicted", "hit"])
        for number, name in enumerate(names):
            values = ["" if np.isnan(column[number]) else f"{column[number]:.4f}" for column in columns.values()]
            writer.writerow([number, name, *values, *(int(area[number]) for area in areas)])
    return path
