"""Confusion counts as results files keep them, and mIoU, mAcc and aAcc from any sum of them.

The metrics are mmsegmentation's (`IoUMetric`): areas are summed over all images first, then divided; a class that is
neither labelled nor predicted has no IoU, one that is not labelled has no accuracy, and the means are over the others
(`nanmean`). So a mean over few images may be over fewer classes than one over many.

Axis letters: N images, R resamples of images, C classes (rows of a matrix the label, columns the prediction).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from metrics.metric import Metric
from metrics.result_lines import Lines, Resampler, each_of

MIOU, MACC, AACC = Metric(name="miou"), Metric(name="macc"), Metric(name="aacc")
Triplets = Sequence[Sequence[int]]  # [label, prediction, pixels] with pixels above 0: a sparse matrix (C, C)


LAST_CLASS = 2**16 - 1  # pixels are added up in arrays as long as the largest number


@dataclass(frozen=True)
class Confusion:
    """Of an image that was segmented."""

    confusion: tuple[tuple[int, int, int], ...]
    """Class of the label, class of the prediction, pixels."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is no class and no count."""
        for label, prediction, pixels in self.confusion:
            if not (0 <= label <= LAST_CLASS and 0 <= prediction <= LAST_CLASS and 0 <= pixels < 2**48):
                raise ValueError(f"confusion: {[label, prediction, pixels]} is no pair of classes with its pixels")


@dataclass(frozen=True)
class Areas:
    """Pixels per image (or per resample) and class, as whole numbers; ignored ones left out."""

    hit_NC: np.ndarray
    """Labelled and predicted alike."""
    label_NC: np.ndarray
    prediction_NC: np.ndarray


def add_up(parts: Iterable[Triplets], num_classes: int) -> np.ndarray:
    """Return the summed counts as a matrix (C, C) of int64."""
    total_CC = np.zeros((num_classes, num_classes), dtype=np.int64)
    for triplets in parts:
        label, prediction, pixels = _columns(triplets)
        total_CC[label, prediction] += pixels  # no pair of classes is listed twice within an image
    return total_CC


def areas_of(parts: Sequence[Triplets], num_classes: int) -> Areas:
    """Return the areas of every image, from the counts that its line of a results file holds."""
    hit_NC, label_NC, prediction_NC = (np.zeros((len(parts), num_classes), dtype=np.int64) for _ in range(3))
    for image, triplets in enumerate(parts):
        label, prediction, pixels = _columns(triplets)
        np.add.at(label_NC[image], label, pixels)
        np.add.at(prediction_NC[image], prediction, pixels)
        same = label == prediction
        hit_NC[image, label[same]] = pixels[same]
    return Areas(hit_NC, label_NC, prediction_NC)


def scores(total_CC: np.ndarray) -> dict[str, float]:
    """Return miou, macc and aacc in percent. Raises ValueError where no pixel is labelled."""
    if not total_CC.any():
        raise ValueError("no pixel of the validation images is labelled, so there is nothing to score.")
    return {name: float(value[0]) for name, value in _scores(_of_matrix(total_CC)).items()}


def class_scores(total_CC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and accuracy per class in percent, NaN where a class has none."""
    areas = _of_matrix(total_CC)
    return 100 * _iou(areas)[0], 100 * _divide(areas.hit_NC, areas.label_NC)[0]


def resampled_scores(areas: Areas, times_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Return miou, macc and aacc in percent, (R,) each, where image n counts `times_RN[r, n]` times in resample r.

    For the bootstrap over images: a row is `rng.multinomial(N, [1 / N] * N)`. Exactly what `scores` gives of the summed
    matrices; NaN where a resample holds no labelled pixel.
    """
    images = len(areas.label_NC)
    if times_RN.ndim != 2 or times_RN.shape[1] != images:
        raise ValueError(f"multiplicities of shape {times_RN.shape}; {images} images need (resamples, {images}).")
    # float64: matrix products of integers have no BLAS; sums below 2^53 pixels are exact
    times = times_RN.astype(np.float64)
    summed = (times @ part.astype(np.float64) for part in (areas.hit_NC, areas.label_NC, areas.prediction_NC))
    return _scores(Areas(*summed))


def resampler(lines: Lines) -> Resampler:
    """Return the resampler of miou, macc and aacc, from the counts that each line holds as `confusion`.

    Raises LineError with the lines that hold none.
    """
    counted: list[Confusion] = each_of(Confusion, lines)
    parts = [line.confusion for line in counted]
    # classes that are nowhere have no IoU, so the largest number that occurs is enough
    classes = 1 + max((max(row[:2]) for rows in parts for row in rows), default=0)
    areas = areas_of(parts, classes)
    return lambda times_RN: resampled_scores(areas, times_RN)


def _columns(triplets: Triplets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, prediction, pixels = np.array(triplets, dtype=np.int64).reshape(-1, 3).T
    return label, prediction, pixels


def _of_matrix(total_CC: np.ndarray) -> Areas:
    return Areas(total_CC.diagonal()[None], total_CC.sum(axis=1)[None], total_CC.sum(axis=0)[None])


def _iou(areas: Areas) -> np.ndarray:
    return _divide(areas.hit_NC, areas.label_NC + areas.prediction_NC - areas.hit_NC)


def _scores(areas: Areas) -> dict[str, np.ndarray]:
    return {
        MIOU.name: 100 * _mean(_iou(areas)),
        MACC.name: 100 * _mean(_divide(areas.hit_NC, areas.label_NC)),
        AACC.name: 100 * _divide(areas.hit_NC.sum(axis=1), areas.label_NC.sum(axis=1)),
    }


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole)


def _mean(value_NC: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that have a value, NaN (without NumPy's warning) where none has."""
    return _divide(np.nansum(value_NC, axis=1), (~np.isnan(value_NC)).sum(axis=1))
