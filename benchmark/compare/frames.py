"""Test images that look like frames of a video, where a study names no groups.

They are told by what a results file holds of them, since no image is read: their names are a stem and a running number,
and the scores of neighbours are more alike than those of others.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from metrics.result_lines import Resampler

NUMBERED = re.compile(r"(.*?)(\d+)\D*")
LEAST_IMAGES = 20  # fewer neighbours say nothing
MOST_IMAGES = 1000  # of a data set, the first in the order of the names, whose scores are looked at
MOST_CELLS = 4_000_000  # multiplicities held at a time
LIMIT = 3.3  # standard errors of a correlation of images that are not alike: one warning in 2,000 is false


def alike_neighbours(names: Sequence[str], resampler: Resampler, metric: str) -> float | None:
    """Return the correlation of the scores of images with consecutive names, where it is too large for chance.

    Names are consecutive where they share a stem and the next number of it follows. None where they are not, where too
    few images have a score of their own, or where neighbours are no more alike than others of their stem.
    """
    ranked = _numbered(names)[:MOST_IMAGES]
    if len(ranked) < LEAST_IMAGES:
        return None
    places = [place for _, _, place in ranked]
    rows = max(1, MOST_CELLS // len(names))
    parts = (places[start : start + rows] for start in range(0, len(places), rows))
    score_N = np.concatenate([resampler(_alone(part, len(names)))[metric] for part in parts])
    stems = np.array([stem for stem, _, _ in ranked])
    centred_N = score_N.astype(np.float64).copy()
    for stem in dict.fromkeys(stems):  # what the images of one class or video share is no likeness of neighbours
        mine = stems == stem
        known = mine & np.isfinite(score_N)
        centred_N[mine] -= score_N[known].mean() if known.any() else 0.0
    pair = (stems[1:] == stems[:-1]) & np.isfinite(score_N[1:]) & np.isfinite(score_N[:-1])
    one, other = centred_N[:-1][pair], centred_N[1:][pair]
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if pair.sum() < LEAST_IMAGES or scale <= 0:
        return None
    correlation = float((one * other).sum()) / scale
    return correlation if correlation > LIMIT / np.sqrt(pair.sum()) else None


def _alone(places: Sequence[int], images: int) -> np.ndarray:
    """Return multiplicities of one image each."""
    alone_RN = np.zeros((len(places), images), dtype=np.int64)
    alone_RN[np.arange(len(places)), places] = 1
    return alone_RN


def _numbered(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (stem, number, place) of the names that end in a number, in their order."""
    found = []
    for place, name in enumerate(names):
        match = NUMBERED.fullmatch(PurePosixPath(name).stem)
        if match is not None:
            found.append((f"{PurePosixPath(name).parent}/{match[1]}", int(match[2]), place))
    return sorted(found)
