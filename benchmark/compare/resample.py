"""A run's metrics on resamples of its test images, from the per-image results that the run left.

All runs of a task see the same resamples, so a difference of two arms is a paired one. A metric is computed again from
what is stored of each image: top-1 from the predictions, mIoU from confusion counts, AP from matches. Where a results
file does not allow that, or gives another value than the record, it is said and the images are taken as they are.

Axis letters: N images, R resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.compare import RESAMPLES
from benchmark.compare.frames import alike_neighbours
from benchmark.compare.groups import Grouping
from benchmark.compare.lines import Line
from benchmark.compare.records import Stored
from engine.records.own_files import own_file
from engine.records.results_file import read_results
from metrics.result_lines import LineError, Resampler

SEED = 0  # of the resamples: equal records give equal tables
CHUNK = 4_000_000  # multiplicities held at a time
LEAST_GROUPS = 2
TOLERANCE = 1e-4  # percent points between a record's metric and the same from its results file


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The runs of one task on the same resamples."""

    images: int | None
    """Images, or groups of them, that were drawn; None where no metric could be resampled."""
    values_R: dict[Path, dict[str, np.ndarray]]
    """folder of a run -> metric -> value on every resample."""
    problems: tuple[str, ...]
    """Why a run, or all of them, is missing above."""
    grouped: int | None = None
    """Images in the groups that were drawn; None where images were drawn one by one."""
    video: float | None = None
    """Correlation of the scores of images with consecutive names, where it is too large for chance and no groups are
    named."""


def resample(line: Line, runs: Sequence[Stored], resamples: int = RESAMPLES) -> Resampled:
    """Return the metrics of the runs of one line on resamples of their images; `resamples` = 0 asks for none.

    A run whose results do not allow it is left out, with the reason.
    """
    if resamples == 0:
        return Resampled(images=None, values_R={}, problems=(f"{line.label}: 0 resamples asked for",))
    ids: list[str] | None = None
    groups: np.ndarray | None = None
    video: float | None = None
    looked_at: set[str] = set()
    values: dict[Path, dict[str, np.ndarray]] = {}
    problems: dict[str, int] = {}
    for item in runs:
        try:
            mine, resampler = _open(line, item)
            if ids is not None and ids != mine:
                raise ValueError(f"{item.folder} holds other images than {runs[0].folder}")
            _check(item, resampler, len(mine))
            if ids is None and item.grouping is not None:
                groups = _grouped(item.grouping, mine)
            drawn = _drawn(resampler, groups if item.grouping is not None else None, len(mine), resamples)
            if not all(np.isfinite(value_R).all() for value_R in drawn.values()):
                raise ValueError(f"{item.folder}: some resamples of its images hold nothing to score")
            if item.arm not in looked_at and item.grouping is None:
                looked_at.add(item.arm)
                found = alike_neighbours(mine, resampler, line.scores.primary.name)
                video = max((x for x in (video, found) if x is not None), default=None)
            values[item.folder], ids = drawn, mine
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = f"no {error} in a line" if isinstance(error, KeyError) else str(error)
            problems[reason] = problems.get(reason, 0) + 1
    said = tuple(reason if count == 1 else f"{reason} ({count} runs)" for reason, count in problems.items())
    images = len(ids) if ids and values else None
    if images is None or groups is None:
        return Resampled(images=images, values_R=values, problems=said, video=video)
    return Resampled(images=int(groups.max()) + 1, values_R=values, problems=said, grouped=images)


def multiplicities(images: int, resamples: int, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, (R', N) at a time, the same for every call with the same arguments."""
    generator = np.random.default_rng(seed)
    share_N = np.full(images, 1 / images)
    rows = max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        yield generator.multinomial(images, share_N, size=min(rows, resamples - start))


def _open(line: Line, item: Stored) -> tuple[list[str], Resampler]:
    if item.record.results_file is None:
        raise ValueError(f"{line.label}: no per-image results beside the record")
    if (path := own_file(item.folder, item.record, item.record.results_file)) is None:
        raise ValueError(f"{line.label}: no per-image results beside the record")
    results = read_results(path, sha256=item.record.results_sha256)
    if len(results) < 2:
        raise ValueError(f"{item.folder}: {len(results)} images; a resample needs two or more")
    if line.scores.resampler is None:
        raise ValueError(f"{line.label}: no metric of it can be computed from single images")
    try:
        return [result.image_id for result in results], line.scores.resampler([result.values for result in results])
    except LineError as error:
        raise ValueError(f"{path}: {error}") from error


def _check(item: Stored, resampler: Resampler, images: int) -> None:
    for name, value_R in resampler(np.ones((1, images), dtype=np.int64)).items():
        recorded = item.record.metrics.get(name)
        if recorded is not None and not abs(float(value_R[0]) - recorded) <= TOLERANCE:
            raise ValueError(
                f"{item.folder}: {name} of the results file is {value_R[0]:.4f}, of the record {recorded:.4f}"
            )


def _grouped(grouping: Grouping, names: Sequence[str]) -> np.ndarray:
    groups_N = np.array(grouping.number(names), dtype=np.int64)
    if (count := int(groups_N.max()) + 1) < LEAST_GROUPS:
        raise ValueError(
            f"{grouping.source}: the {len(names)} images are of {count} group{'s' * (count > 1)}; a resample needs "
            f"{LEAST_GROUPS} or more, so nothing can be said of other groups"
        )
    return groups_N


def _drawn(resampler: Resampler, groups_N: np.ndarray | None, images: int, resamples: int) -> dict[str, np.ndarray]:
    """Return the metrics on the resamples, of images or of whole groups of them."""
    units = images if groups_N is None else int(groups_N.max()) + 1
    rows = max(1, CHUNK // images)
    parts = [
        resampler(some_RU if groups_N is None else some_RU[:, groups_N])
        for times_RU in multiplicities(units, resamples)
        for some_RU in (times_RU[start : start + rows] for start in range(0, len(times_RU), rows))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
