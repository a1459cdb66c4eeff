"""The learning rate of an arm in a task or its pre-training: the best of a grid, on images of no result.

Every arm has the same grid, seed, images and length. The winner is the one with the best primary metric, of equal
ones the smallest; a learning rate at which the loss became infinite is worse than any other. Where the winner of some
arm is an end of the grid, a grid that may be widened is so for all arms.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.config import as_json
from engine.records.record import RECORD_NAME, RunRecord, read_record, standing
from engine.records.version1 import choice_of_today
from files.digest import sealed, unsealed
from files.naming import inside
from files.parsing import read_json
from files.typed import from_json
from files.writing import replacing
from metrics.metric import Metric

LR_FLAG = "base_lr"
NAME = "choice.json"
DIGITS = 6  # of a learning rate beyond a grid
DIVERGED = "NonFiniteError"  # how the record of a run begins whose loss or gradient became infinite


Side = Literal["lowest", "highest"]


def rates_beyond(base_lrs: Sequence[float], side: Side, steps: int) -> tuple[float, ...]:
    """Return the learning rates beyond an end of a grid, nearest first: as far apart as the last two at that end."""
    rates = sorted(base_lrs)
    end, before = (rates[0], rates[1]) if side == "lowest" else (rates[-1], rates[-2])
    return tuple(float(f"{end * (end / before) ** step:.{DIGITS}g}") for step in range(1, steps + 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Beyond:
    """When a learning rate beyond a grid is tried: where the best of some arm so far is the end on that side."""

    side: Side
    grids: tuple[tuple[tuple[float, Path], ...], ...]
    """For each arm of the task the learning rates up to there, and the folders of their runs."""
    runs: tuple[str, ...]
    """Names of these runs."""
    metric: Metric
    nearer: "Beyond | None" = None
    """That of the rate before, on the same side; None next to the grid."""

    def wanted(self) -> bool | None:
        """Return whether it is to be tried; None while that is not known. Once known it is not looked for again."""
        known: bool | None = vars(self).get("known")
        if known is None and (known := self._asked()) is not None:
            vars(self)["known"] = known
        return known

    def _asked(self) -> bool | None:
        if self.nearer is not None and not (nearer := self.nearer.wanted()):
            return nearer
        asked = False
        for grid in self.grids:
            tried = []
            for lr, folder in grid:
                try:
                    record = read_record(folder)
                except (FileNotFoundError, ValueError):
                    return None
                if not is_settled(record):
                    return None
                tried.append(Tried(base_lr=lr, value=_value(record, self.metric)))
            best = _best(tried, self.metric)
            rates = [lr for lr, _ in grid]
            end = min(rates) if self.side == "lowest" else max(rates)
            asked |= best is not None and best.base_lr == end
        return asked


@dataclass(frozen=True, kw_only=True)
class Search:
    """The runs among which a rate is chosen."""

    task: str
    arm: str
    seed: int
    grid: tuple[tuple[float, Path], ...]
    """Learning rate and folder of each run."""
    runs: tuple[str, ...]
    """Their names."""
    out: Path
    """Folder of the choice."""
    judge: str | None = None
    """Tool whose metric decides; None for that of the runs themselves."""
    judged: tuple[Path, ...] = ()
    """Folder of the record with that metric for each run of the grid; none where it is the run's own."""
    beyond: tuple[Beyond | None, ...] = ()
    """For each run of the grid when it is tried, None for always; empty where all are."""

    def whens(self) -> tuple[Beyond | None, ...]:
        """Return for each run of the grid when it is tried, None for always."""
        return self.beyond or (None,) * len(self.grid)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One learning rate of the grid."""

    base_lr: float
    value: float | None
    """Primary metric; None where the loss became infinite."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a search chose, and from what."""

    task: str
    arm: str
    metric: str
    val_split: str
    val_images: int
    seed: int
    base_lr: float
    tried: tuple[Tried, ...]
    """By rising learning rate."""
    decimals: int = 2
    """Of the metric, in the sentence."""

    @property
    def edge(self) -> Side | None:
        """Which end of the grid the best learning rate is, so that a better one may lie beyond; None inside."""
        if len(self.tried) < 2 or self.base_lr not in (self.tried[0].base_lr, self.tried[-1].base_lr):
            return None
        return "lowest" if self.base_lr == self.tried[0].base_lr else "highest"

    def line(self) -> str:
        """Return one sentence for a report, with a warning where the best learning rate is at the edge of the grid."""
        values = ("diverged" if t.value is None else f"{t.value:.{self.decimals}f}" for t in self.tried)
        each = ", ".join(f"{t.base_lr:g}: {value}" for t, value in zip(self.tried, values, strict=True))
        text = (
            f"Learning rate of {self.arm} in {self.task}: {self.base_lr:g}, by {self.metric} on {self.val_images:,} "
            f"images ({self.val_split}) with seed {self.seed} ({each})."
        )
        if self.edge is not None:
            text += (
                f" WARNING: {self.base_lr:g} is the {self.edge} of the grid; a better one may lie beyond, so widen it."
            )
        return text


def choose(search: Search, metric: Metric) -> Choice:
    """Return the choice from the records of the search by `metric`, and write it to its folder.

    Raises ValueError while a run of the grid has no result or one that no run can have, and where the loss became
    infinite at every learning rate.
    """
    tried, records = [], []
    for (lr, run), judged, beyond in sorted(_entries(search), key=lambda entry: entry[0]):
        if beyond is not None and not (wanted := beyond.wanted()):
            if wanted is None:
                raise ValueError("needs the search runs of all arms, which say whether the grid is to be wider")
            continue
        folder, record = run, _settled(run)
        if judged != run and not has_diverged(record):
            folder, record = judged, _settled(judged)
        value = record.metrics.get(metric.name)
        if value is not None and (fault := metric.fault(value)) is not None:
            raise ValueError(
                f"{folder / RECORD_NAME}: metrics.{metric.name}: {fault}; remove that folder to run it anew"
            )
        records.append(record)
        tried.append(Tried(base_lr=lr, value=_value(record, metric)))
    best = _best(tried, metric)
    if best is None:
        raise ValueError(
            f"the loss of {search.arm} in {search.task} became infinite at every learning rate of the search "
            f"({', '.join(f'{item.base_lr:g}' for item in tried)}); add lower ones."
        )
    first = records[0]
    choice = Choice(
        task=search.task,
        arm=search.arm,
        metric=metric.name,
        val_split=first.val_split,
        val_images=first.val_images,
        seed=search.seed,
        base_lr=best.base_lr,
        tried=tuple(tried),
        decimals=metric.decimals,
    )
    write_choice(search.out, choice)
    return choice


def _entries(search: Search) -> list[tuple[tuple[float, Path], Path, Beyond | None]]:
    """Return (rate, run), the folder of what judges it, and when it is tried, for each rate."""
    judged = search.judged or tuple(run for _, run in search.grid)
    return [*zip(search.grid, judged, search.whens(), strict=True)]


def _best(tried: Sequence[Tried], metric: Metric) -> Tried | None:
    """Return the rate with the best metric, of equal ones the smallest; None where the loss was infinite at all."""
    scored = [item for item in tried if item.value is not None]
    return max(scored, key=lambda item: (metric.gain(item.value or 0.0), -item.base_lr), default=None)


def _settled(folder: Path) -> RunRecord:
    """Return the record of a run of a search. Raises ValueError while it has no result."""
    try:
        record = read_record(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"needs the search run {folder.name}, which has no record") from error
    if not is_settled(record):
        why = f" ({record.error})" if record.error else ""
        raise ValueError(f"needs the search run {folder.name}, which is {standing(folder, record)}{why}")
    return record


def write_choice(folder: Path, choice: Choice) -> None:
    """Write `folder/choice.json`."""
    with replacing(folder / NAME) as temporary:
        temporary.write_text(json.dumps(sealed(as_json(choice)), indent=1) + "\n", encoding="utf-8")


def is_settled(record: RunRecord | None) -> bool:
    """Return whether a run of a search says all that it will: it is completed, or its loss became infinite."""
    if record is None:
        return False
    return record.status == "completed" or has_diverged(record)


def read_choice(folder: Path) -> Choice | None:
    """Return the choice in a folder, None where there is none. Raises ValueError that names the file."""
    path = inside(folder, NAME, source=folder)
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        return from_json(Choice, choice_of_today(unsealed(values, str(path)) if isinstance(values, dict) else values))
    except ValueError as error:
        raise ValueError(f"{path}: not a readable choice ({error}); remove it, the study writes it anew.") from error


def has_diverged(record: RunRecord) -> bool:
    """Return whether the loss or a gradient became infinite."""
    return record.status == "failed" and (record.error or "").startswith(DIVERGED)


def _value(record: RunRecord, metric: Metric) -> float | None:
    value = record.metrics.get(metric.name)
    return None if has_diverged(record) or metric.is_missing(value) else value
