"""COCO's average precision from what each image's detections matched, for any resample of the images.

A results file keeps per image how many objects of each class it has and, for each detection, at which IoU thresholds it
is a hit and at which it is left out (it lies on a crowd). That is all that AP depends on (COCOeval's `accumulate`, area
`all`), so a bootstrap needs neither the images nor the masks. The protocol: arXiv 1405.0312 and cocodataset.org.

Axis letters: I images, R resamples, D detections of a class, best first, M those that hit, T thresholds 0.50 to 0.95.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypedDict

import numpy as np

from files.typed import LARGEST
from metrics.metric import Metric
from metrics.result_lines import Lines, Resampler, placed_as

MATCHES = {"box_matches": "box_ap", "mask_matches": "mask_ap"}  # field of a results file -> metric
THRESHOLDS = 10
LAST_OBJECT = 2**53  # class numbers up to which float64 tells whole numbers apart
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_CELLS = 4_000_000  # of a block of resamples times detections, to bound the memory


class ImageMatches(TypedDict):
    """An image's part of AP, as plain JSON; class numbers are any whole numbers from 0."""

    objects: list[list[int]]
    """[class, how many objects that are no crowds]."""
    detections: list[list[float]]
    """[class, score, hits, left out]: bit t of the last two speaks of IoU threshold 0.50 + 0.05 t."""


@dataclass(frozen=True)
class Matches:
    """Of the boxes or masks of an image."""

    objects: tuple[tuple[int, int], ...]
    """Class, objects."""
    detections: tuple[tuple[int, float, int, int], ...]
    """Class, score, bits of the thresholds with a hit, bits of those that leave it out."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is no class, count or set of thresholds."""
        for number, count in self.objects:
            if not (0 <= number <= LAST_OBJECT and 0 <= count < 2**31):
                raise ValueError(f"objects: {[number, count]} is no class with its objects")
        for number, score, hits, left_out in self.detections:
            if not (0 <= number <= LAST_OBJECT and max(hits, left_out) < 1 << THRESHOLDS and min(hits, left_out) >= 0):
                raise ValueError(f"detections: {[number, score, hits, left_out]} is no class with its thresholds")


@dataclass(frozen=True)
class _ClassMatches:
    """One class over all images."""

    objects_I: np.ndarray
    """Objects per image."""
    image_D: np.ndarray
    """The image of every detection."""
    hits_T: tuple[np.ndarray, ...]
    """Ranks among D of the hits."""
    left_out_T: tuple[np.ndarray, ...]
    """Ranks among D of those left out."""


class AveragePrecision:
    """AP of resamples of one set of images."""

    def __init__(self, images: Sequence[ImageMatches]) -> None:
        """Sort the detections of every class once; `images` in the order of the data set, which settles ties."""
        self.images = len(images)
        self._classes = _by_class(images)

    def of(self, times_RI: np.ndarray) -> np.ndarray:
        """Return AP from 0 to 100, (R,), where image i counts `times_RI[r, i]` times in resample r.

        Equal to COCOeval's on a data set that repeats the images so. NaN for a resample without objects. Copies of an
        image whose detections of one class have equal scores are ranked detection by detection, not copy by copy.
        """
        times = np.asarray(times_RI)
        if times.ndim != 2 or times.shape[1] != self.images:
            raise ValueError(
                f"multiplicities of shape {times.shape}; {self.images} images need (resamples, {self.images})."
            )
        if times.size and times.min() < 0:
            raise ValueError(f"a multiplicity is {times.min()}; an image counts 0 times or more.")
        times = times.astype(np.int32)
        total_R, classes_R = np.zeros(len(times)), np.zeros(len(times))
        for one in self._classes:
            block = max(1, MOST_CELLS // max(1, len(one.image_D)))
            for start in range(0, len(times), block):
                part = slice(start, start + block)
                objects_R = times[part] @ one.objects_I
                total_R[part] += np.where(objects_R > 0, _class_ap(one, times[part], objects_R), 0.0)
                classes_R[part] += objects_R > 0
        with np.errstate(invalid="ignore"):
            return np.asarray(100 * total_R / classes_R)


def ap(name: str) -> Metric:
    """Return AP or a kind of it: in percent, -1 where no object is of the kind."""
    return Metric(name=name, undefined=-1.0)


def resampler(lines: Lines) -> Resampler:
    """Return the resampler of box_ap and, where masks were matched too, mask_ap.

    Raises ValueError where lines hold no matches, LineError for matches that are none.
    """
    held = [name for name in MATCHES if all(name in line for line in lines)]
    if not held:
        raise ValueError("detection: the results files hold no matches")
    precision = {MATCHES[name]: AveragePrecision(_matches(lines, name)) for name in held}
    return lambda times_RN: {metric: one.of(times_RN) for metric, one in precision.items()}


def _matches(lines: Sequence[dict[str, Any]], name: str) -> list[ImageMatches]:
    """Return the matches `name` of the lines of a detection. Raises LineError with the lines that have none."""
    found = [line[name] for line in lines]
    if not all(_plain(image) for image in found):  # COCO's half a million rows take 6 s one by one
        placed_as(Matches, ((f"line {number}.{name}", image) for number, image in enumerate(found, start=1)))
    return found


def _plain(image: Any) -> bool:
    """Return whether matches are as they should be; where not, it is left to `Matches` to say what is wrong."""
    if type(image) is not dict or image.keys() != {"objects", "detections"}:
        return False
    objects, detections = image["objects"], image["detections"]
    if not _rows(objects, 2) or not _rows(detections, 4):
        return False
    if not {*map(type, chain.from_iterable(objects))} <= {int}:
        return False
    columns = [*zip(*detections, strict=True)] or [()] * 4
    if any({*map(type, columns[place])} - {int} for place in (0, 2, 3)) or {*map(type, columns[1])} - {int, float}:
        return False
    numbers, bits = [*columns[0], *(number for number, _ in objects)], [*columns[2], *columns[3]]
    counts = [count for _, count in objects]
    spans = ((numbers, LAST_OBJECT), (counts, 2**31 - 1), (bits, (1 << THRESHOLDS) - 1))
    whole = all(min(values, default=0) >= 0 and max(values, default=0) <= most for values, most in spans)
    return whole and all(-LARGEST <= score <= LARGEST for score in columns[1])


def _rows(value: Any, length: int) -> bool:
    return type(value) is list and {*map(type, value)} <= {list} and {*map(len, value)} <= {length}


def ap_from_matches(images: Sequence[ImageMatches], weights: Sequence[int] | np.ndarray) -> float:
    """Return AP from 0 to 100 where image i counts `weights[i]` times; for many resamples keep an AveragePrecision."""
    return float(AveragePrecision(images).of(np.asarray(weights)[None])[0])


def _by_class(images: Sequence[ImageMatches]) -> list[_ClassMatches]:
    objects = np.array([[i, *row] for i, image in enumerate(images) for row in image["objects"]], np.int64)
    found = np.array([[i, *row] for i, image in enumerate(images) for row in image["detections"]], np.float64)
    objects, found = objects.reshape(-1, 3), found.reshape(-1, 5)
    # by class, then score, then image: the last two as COCOeval's stable sort
    found = found[np.lexsort((-found[:, 2], found[:, 1]))]
    classes = []
    for number in np.unique(objects[:, 1]):  # COCO leaves out classes without an object
        of_class = objects[objects[:, 1] == number]
        objects_I = np.zeros(len(images), np.int32)
        np.add.at(objects_I, of_class[:, 0], of_class[:, 2].astype(np.int32))
        rows = found[np.searchsorted(found[:, 1], number, "left") : np.searchsorted(found[:, 1], number, "right")]
        hits, left_out = rows[:, 3].astype(np.int64), rows[:, 4].astype(np.int64)
        classes.append(
            _ClassMatches(
                objects_I,
                rows[:, 0].astype(np.int64),
                tuple(np.flatnonzero(hits & ~left_out & 1 << t) for t in range(THRESHOLDS)),
                tuple(np.flatnonzero(left_out & 1 << t) for t in range(THRESHOLDS)),
            )
        )
    return classes


def _class_ap(one: _ClassMatches, times_RI: np.ndarray, objects_R: np.ndarray) -> np.ndarray:
    """Return the class's AP from 0 to 1, the mean over thresholds; anything where it has no object.

    Precision has its peaks at the hits, and recall rises there alone, so only the ranks of the hits are looked at.
    """
    times_RD = times_RI[:, one.image_D]
    rank_RD = np.cumsum(times_RD, axis=1, dtype=np.int32)  # detections up to here, each as often as its image counts
    total_R = np.zeros(len(times_RI))
    for hits_M, left_out in zip(one.hits_T, one.left_out_T, strict=True):
        if not len(hits_M):
            continue
        hit_RM = np.cumsum(times_RD[:, hits_M], axis=1, dtype=np.int32)
        seen_RM = rank_RD[:, hits_M]
        if len(left_out):
            before_RL = np.cumsum(times_RD[:, left_out], axis=1, dtype=np.int32)
            before_RL = np.concatenate([np.zeros((len(times_RI), 1), np.int32), before_RL], axis=1)
            seen_RM = seen_RM - before_RL[:, np.searchsorted(left_out, hits_M)]
        precision_RM = hit_RM / np.maximum(seen_RM, 1)
        best_RM = np.maximum.accumulate(precision_RM[:, ::-1], axis=1)[:, ::-1]
        reached_RM = _recalls_reached(hit_RM, objects_R)
        # every recall value takes the best precision from the first hit that reaches it
        total_R += (best_RM * np.diff(reached_RM, axis=1, prepend=0)).sum(axis=1)
    return total_R / (THRESHOLDS * len(RECALLS))


def _recalls_reached(hit_RM: np.ndarray, objects_R: np.ndarray) -> np.ndarray:
    """Return how many of the 101 recall values are at most `hit / objects`, 0 where nothing is hit yet."""
    recall_RM = hit_RM / np.maximum(objects_R, 1)[:, None]
    # as the comparison of COCOeval's float64: the guess by multiplication can be one too high or too low
    guess = np.minimum((recall_RM * 100).astype(np.int32), 100)
    guess -= RECALLS[guess] > recall_RM
    guess += RECALLS[np.minimum(guess + 1, 100)] <= recall_RM
    return np.where(hit_RM > 0, np.minimum(guess, 100) + 1, 0)
