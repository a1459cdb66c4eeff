"""A metric on resamples of its images, from what a results file keeps of each.

Axis letters: N images, M metrics, R resamples.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Lines = Sequence[dict[str, Any]]  # of a results file, an image each
Finish = Callable[[np.ndarray], np.ndarray]


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
