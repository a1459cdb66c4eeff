"""What one image adds to the metrics: confusion counts of its pixels, and of those near its boundaries.

Counts equal those of mmseg's IoUMetric. The boundary form follows Boundary IoU (Cheng et al. 2021, arXiv 2103.16562):
a mask's boundary is what lies within a distance of its contour, the frame of the image being a contour too. Theirs
scores instances; the semantic form takes each class of an image as one mask and sums areas over the images before it
divides, as mIoU does.

Axis letters: H x W pixels.
"""

import cv2
import numpy as np

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
