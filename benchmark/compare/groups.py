"""Groups of test images that are alike, as frames of one video: groups are drawn, not images, where a study names them.

Where it names none, images that look like frames are told by what a results file holds of them, since no image is read:
their names are a stem and a running number, and the scores of neighbours are more alike than those of others.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from benchmark.study.plan import Groups
from files.naming import inside
from files.parsing import read_text
from metrics.result_lines import Resampler

NUMBERED = re.compile(r"(.*?)(\d+)\D*")
LEAST_IMAGES = 20  # fewer neighbours say nothing
MOST_IMAGES = 1000  # of a data set, the first in the order of the names, whose scores are looked at
MOST_CELLS = 4_000_000  # multiplicities held at a time
LIMIT = 3.3  # standard errors of a correlation of images that are not alike: one warning in 2,000 is false
LARGEST_FILE = 64 * 2**20  # bytes


@dataclass(frozen=True)
class Grouping:
    """Where the groups of a task's test images stand."""

    groups: Groups
    root: Path
    """Folder of the plan that names them."""
    source: Path
    """The plan."""

    def number(self, names: Sequence[str]) -> np.ndarray:
        """Return the number of each image's group, from 0.

        Raises ValueError for an image that belongs to none, OSError for a file that is not there.
        """
        found = self._by_pattern(names) if self.groups.pattern is not None else self._by_file(names)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(found))}
        return np.array([numbers[group] for group in found], dtype=np.int64)

    def _by_pattern(self, names: Sequence[str]) -> list[str]:
        assert self.groups.pattern is not None
        pattern = re.compile(self.groups.pattern)
        found = []
        for name in names:
            match = pattern.search(name)
            if match is None or match[1] is None:
                raise ValueError(f"{self.source}: groups: {pattern.pattern!r} finds no group in the image {name!r}")
            found.append(match[1])
        return found

    def _by_file(self, names: Sequence[str]) -> list[str]:
        assert self.groups.file is not None
        path = inside(self.root, self.groups.file, source=self.source)
        of_name = read_groups(path)
        if missing := [name for name in names if name not in of_name]:
            raise ValueError(f"{path}: no group for {len(missing)} of {len(names)} images, as {missing[0]!r}")
        return [of_name[name] for name in names]


def read_groups(path: Path) -> dict[str, str]:
    """Return image -> group of a file of `name,group` lines. Raises ValueError that names the file and the line."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path}: more than {LARGEST_FILE:,} bytes; give a line name,group for each test image")
    found: dict[str, str] = {}
    try:
        for number, row in enumerate(csv.reader(read_text(path).splitlines(), strict=True), start=1):
            if not row:
                continue
            if len(row) != 2 or not all(row):
                raise ValueError(f"line {number} is no name,group")
            if found.setdefault(row[0], row[1]) != row[1]:
                raise ValueError(f"line {number}: {row[0]!r} is in a second group")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


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
