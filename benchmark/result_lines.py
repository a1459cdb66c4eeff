"""Lines of a results file as a resample reads them: every field has its type, or all that is wrong is said at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

from engine.matching import THRESHOLDS, ImageMatches
from files.typed import LARGEST, SAID, from_json

LAST_CLASS = 2**16 - 1  # of a segmentation: pixels are added up in arrays as long as the largest number
LAST_OBJECT = 2**53  # of a detection: the largest up to which float64 tells whole numbers apart
MATCHES = {"box_matches": "box_ap", "mask_matches": "mask_ap"}  # field of a line -> metric


class LineError(ValueError):
    """Lines of a results file are not what they should be; the message has their numbers."""


@dataclass(frozen=True)
class Answers:
    """Of an image that was classified."""

    label: int
    top5: tuple[int, ...]
    """The likeliest first."""

    def __post_init__(self) -> None:
        """Raise ValueError without an answer."""
        if not self.top5:
            raise ValueError("top5 is empty")


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


def answers(lines: Sequence[dict[str, Any]]) -> list[Answers]:
    """Return the lines of a classification. Raises LineError with the lines that are none."""
    return _each(Answers, lines)


def confusions(lines: Sequence[dict[str, Any]]) -> list[Confusion]:
    """Return the lines of a segmentation. Raises LineError with the lines that are none."""
    return _each(Confusion, lines)


def matches(lines: Sequence[dict[str, Any]], name: str) -> list[ImageMatches]:
    """Return the matches `name` of the lines of a detection. Raises LineError with the lines that have none."""
    found = [line[name] for line in lines]
    if not all(_plain(image) for image in found):  # COCO's half a million rows take 6 s one by one
        _raise(Matches, ((f"line {number}.{name}", image) for number, image in enumerate(found, start=1)))
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


def _each(cls: type[Any], lines: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the fields of a dataclass of every line; a line may hold others."""
    names = {f.name for f in fields(cls)}
    picked = [{name: value for name, value in line.items() if name in names} for line in lines]
    return _raise(cls, ((f"line {number}", line) for number, line in enumerate(picked, start=1)))


def _raise(cls: type[Any], placed: Iterable[tuple[str, Any]]) -> list[Any]:
    """Return the values as dataclasses. Raises LineError with the faults of the first SAID that are none."""
    made, faults = [], []
    for place, value in placed:
        try:
            made.append(from_json(cls, value, place=place))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - SAID} more lines" if len(faults) > SAID else ""
        raise LineError("; ".join(faults[:SAID]) + more)
    return made
