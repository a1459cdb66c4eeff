"""Lines of a results file as metrics read them, and a metric on resamples of the images that they are of.

Every field has its type, or all that is wrong is said at once. Axis letters: N images, M metrics, R resamples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from files.typed import SAID, from_json

Lines = Sequence[dict[str, Any]]  # of a results file, an image each
Finish = Callable[[np.ndarray], np.ndarray]


class LineError(ValueError):
    """Lines of a results file are not what they should be; the message has their numbers."""


def each_of(cls: type[Any], lines: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the fields of a dataclass of every line; a line may hold others."""
    names = {f.name for f in fields(cls)}
    picked = [{name: value for name, value in line.items() if name in names} for line in lines]
    return placed_as(cls, ((f"line {number}", line) for number, line in enumerate(picked, start=1)))


def placed_as(cls: type[Any], placed: Iterable[tuple[str, Any]]) -> list[Any]:
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


class Resampler(Protocol):
    """A run's metrics where image n counts `times_RN[r, n]` times in resample r."""

    def __call__(self, times_RN: np.ndarray) -> dict[str, np.ndarray]:
        """Return metric -> values (R,), in the record's names and units."""


def shares(names: Sequence[str], hits: Sequence[Sequence[bool]]) -> Resampler:
    """Return the resampler of shares of images in percent; `hits` has a row per image, a column per name."""
    hit_NM = np.array(hits, dtype=np.float64)

    def of(times_RN: np.ndarray) -> dict[str, np.ndarray]:
        share_RM = 100 * (times_RN @ hit_NM) / times_RN.sum(axis=1, keepdims=True)
        return dict(zip(names, share_RM.T, strict=True))

    return of


def mean_of(name: str, values: Sequence[float], finish: Finish = lambda mean_R: mean_R) -> Resampler:
    """Return the resampler of a mean over images, or of what `finish` makes of it: the root, of squared errors."""
    value_N = np.array(values, dtype=np.float64)
    return lambda times_RN: {name: finish((times_RN @ value_N) / times_RN.sum(axis=1))}
