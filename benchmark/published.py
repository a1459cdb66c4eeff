"""Published values beside measured ones: what a published recipe should give, and whether a run of it does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmark.lines import arm_of
from benchmark.stats import Summary, summarise
from engine.record import RunRecord

PATH = Path(__file__).with_name("published.yaml")
BLOCK_FIELDS = {"recipe", "task", "data", "backbone", "tolerance", "tolerance_reason", "source", "rows"}
ROW_FIELDS = {"arm", "metric", "value", "table"}
ROW_OPTIONS = {"recipe", "note"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number."""

    recipe: str
    """Name that the record of a run has when it follows the recipe; where an arm has settings of its own, theirs."""
    block: str
    """Recipe that the row is published beside, whose rows are shown together."""
    task: str
    data: str
    """Data set, protocol and image size."""
    backbone: str
    arm: str
    """What a record calls the initial weights (benchmark.lines.arm_of)."""
    metric: str
    value: float
    """Percent."""
    tolerance: float
    """How far a measured mean may lie from it, in percent points."""
    tolerance_reason: str
    source: str
    table: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedCheck:
    """A published number and what was measured with its recipe."""

    published: Published
    measured: Summary | None
    """Over seeds; None where the arm was not run with the recipe."""

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.measured is None else self.measured.mean - self.published.value

    @property
    def outside(self) -> bool:
        """Whether a measured value lies further away than the tolerance."""
        # 1e-9: 83.9 - 83.6 is a little above 0.3 in binary
        return self.difference is not None and abs(self.difference) > self.published.tolerance + 1e-9


@cache
def published_rows(path: Path = PATH) -> tuple[Published, ...]:
    """Return the published numbers. Raises ValueError that names the block or row that is not complete."""
    rows = []
    for block in yaml.safe_load(path.read_text(encoding="utf-8")):
        _complete(path, block, BLOCK_FIELDS, optional=set())
        shared = {name: value for name, value in block.items() if name != "rows"}
        for row in block["rows"]:
            _complete(path, row, ROW_FIELDS, optional=ROW_OPTIONS)
            rows.append(Published(**{"block": block["recipe"], **shared, **row}))
    keys = [(row.recipe, row.arm, row.metric) for row in rows]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(
            f"{path.name}: {', '.join('/'.join(key) for key in twice)} is there twice; one recipe, one row."
        )
    return tuple(rows)


def check_published(
    records: Sequence[RunRecord], rows: Sequence[Published] | None = None
) -> tuple[PublishedCheck, ...]:
    """Return every row of the blocks that the records follow (by recipe and task), with what its arm measured."""
    rows = published_rows() if rows is None else rows
    measured: dict[tuple[str, str, str, str], list[float]] = {}
    for record in records:
        for metric, value in record.metrics.items():
            if math.isfinite(value):
                measured.setdefault((record.recipe, record.task, arm_of(record), metric), []).append(value)
    recipes = {(record.recipe, record.task) for record in records}
    followed = {(row.block, row.task) for row in rows if (row.recipe, row.task) in recipes}
    return tuple(
        PublishedCheck(published=row, measured=summarise(measured.get((row.recipe, row.task, row.arm, row.metric), [])))
        for row in rows
        if (row.block, row.task) in followed
    )


def _complete(path: Path, fields: dict[str, Any], required: set[str], *, optional: set[str]) -> None:
    missing, unknown = sorted(required - set(fields)), sorted(set(fields) - required - optional)
    if missing or unknown:
        name = fields.get("recipe") or fields.get("arm") or fields
        raise ValueError(
            f"{path.name}: {name}: fields missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}."
        )
