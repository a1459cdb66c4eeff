"""Masks and boxes of one object a query, as results files keep them, and the mean of their IoU over queries.

The metrics are those of Bar et al. 2022 (arXiv 2209.00647, `evaluate/segmentation_utils.py` of their code): the IoU of
the foreground of each query, then the mean over queries. It is not mIoU, in which areas are summed over all images
first. A query without a predicted pixel has an IoU of 0, of the mask and of the box.

Axis letters: N images, Q queries, R resamples of images, H x W pixels.
"""

import math
from dataclasses import dataclass

import numpy as np

from metrics.metric import Metric
from metrics.result_lines import Lines, Resampler, each_of

FOREGROUND_IOU, BOX_IOU = Metric(name="foreground_iou"), Metric(name="box_iou")
Box = tuple[float, float, float, float]  # left, top, width, height in pixels
MOST_PIXELS = 2**48


@dataclass(frozen=True)
class Query:
    """What was said of one query: one object of one class."""

    category: int
    hit: int
    """Pixels of the object that were predicted."""
    labelled: int
    """Pixels of the object."""
    predicted: int
    box: Box | None
    """None where no pixel was predicted."""
    true_box: Box

    def __post_init__(self) -> None:
        """Raise ValueError for counts and boxes that no query has."""
        if not 0 <= self.hit <= min(self.labelled, self.predicted) <= max(self.labelled, self.predicted) < MOST_PIXELS:
            raise ValueError(f"hit {self.hit}, labelled {self.labelled}, predicted {self.predicted} are no counts")
        for box in (self.box, self.true_box):
            if box is not None and not (all(map(math.isfinite, box)) and min(box[2:]) >= 0):
                raise ValueError(f"box {list(box)} has no width and height")

    @property
    def foreground_iou(self) -> float:
        """From 0 to 1; 0 where there is neither."""
        union = self.labelled + self.predicted - self.hit
        return self.hit / union if union else 0.0

    @property
    def box_iou(self) -> float:
        """From 0 to 1; 0 without a box."""
        return 0.0 if self.box is None else box_iou(self.box, self.true_box)


@dataclass(frozen=True)
class Queries:
    """Of an image, which is a query once for each class of which it has one object."""

    queries: tuple[Query, ...]


def box_iou(a: Box, b: Box) -> float:
    """Return the IoU of two boxes, 0 where both have no area."""
    across, down = (min(a[k] + a[2 + k], b[k] + b[2 + k]) - max(a[k], b[k]) for k in (0, 1))
    both = max(0.0, across) * max(0.0, down)
    union = a[2] * a[3] + b[2] * b[3] - both
    return both / union if union > 0 else 0.0


def filled(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres lie in a box, at least one in an image of `size`, (H, W) bool."""
    mask_HW = np.zeros(size, dtype=bool)
    spans = []
    for begin, length, side in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        first = min(max(0, round(begin)), side - 1)
        spans.append(slice(first, max(first + 1, round(begin + length))))
    mask_HW[spans[0], spans[1]] = True
    return mask_HW


def scores(lines: Lines) -> dict[str, float]:
    """Return foreground_iou and box_iou in percent, means over queries. Raises ValueError where there is no query."""
    if not any(line["queries"] for line in lines):
        raise ValueError("no query to score.")
    once = resampler(lines)(np.ones((1, len(lines)), dtype=np.int64))
    return {name: float(value[0]) for name, value in once.items()}


def resampler(lines: Lines) -> Resampler:
    """Return the resampler of both metrics: an image is drawn with all of its queries.

    Raises LineError with the lines that hold none.
    """
    images: list[Queries] = each_of(Queries, lines)
    count_N = np.array([len(image.queries) for image in images], dtype=np.float64)
    sums = {
        FOREGROUND_IOU.name: np.array([sum(query.foreground_iou for query in image.queries) for image in images]),
        BOX_IOU.name: np.array([sum(query.box_iou for query in image.queries) for image in images]),
    }

    def of(times_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {name: 100 * (times_RN @ sum_N) / (times_RN @ count_N) for name, sum_N in sums.items()}

    return of
