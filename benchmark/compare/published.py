"""Published values beside measured ones: what a published recipe should give, and whether a run of it does.

A run is held against a published value if it is of the published setting: it changed nothing of its recipe, but for a
learning rate that a study has searched, and was evaluated on as many images. Others are counted, with what they differ
in.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.compare.lines import arm_of
from benchmark.compare.records import Stored
from benchmark.compare.seeds import Summary, summarise
from benchmark.study.search import LR_FLAG
from files.parsing import parse_yaml
from files.typed import from_json

PATH = Path(__file__).with_name("published.yaml")
BLOCK_FIELDS = {"recipe", "task", "data", "val_images", "backbone", "tolerance", "tolerance_reason", "source", "rows"}
ROW_FIELDS = {"arm", "metric", "value", "table"}
ROW_OPTIONS = {"recipe", "note"}
NO_RECIPE = "none"
CHANGED = re.compile(r"[\w.]+: .* -> ", re.DOTALL)  # a departure of the run; those of the recipe itself are sentences


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number."""

    recipe: str
    """Name that the record of a run has when it follows the recipe; where an arm has settings of its own, theirs;
    NO_RECIPE where these are no recipe here."""
    block: str
    """Recipe that the row is published beside, whose rows are shown together."""
    task: str
    data: str
    """Data set, protocol and image size."""
    val_images: int
    """How many images the value is of."""
    backbone: str
    arm: str
    """What a record calls the initial weights (benchmark.compare.lines.arm_of)."""
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
    left_out: tuple[str, ...] = ()
    """What kept runs of the arm and the recipe from being held against the value, with their number."""

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
    for block in parse_yaml(path.read_bytes(), path.name):
        _complete(path, block, BLOCK_FIELDS, optional=set())
        shared = {name: value for name, value in block.items() if name != "rows"}
        for row in block["rows"]:
            _complete(path, row, ROW_FIELDS, optional=ROW_OPTIONS)
            place = f"{path.name}: {row['arm']} of {block['recipe']}"
            rows.append(from_json(Published, {"block": block["recipe"], **shared, **row}, place=place))
    keys = [(row.recipe, row.arm, row.metric) for row in rows if row.recipe != NO_RECIPE]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(
            f"{path.name}: {', '.join('/'.join(key) for key in twice)} is there twice; one recipe, one row."
        )
    return tuple(rows)


def check_published(stored: Sequence[Stored], rows: Sequence[Published] | None = None) -> tuple[PublishedCheck, ...]:
    """Return every row of the blocks that the runs follow (by recipe and task), with what its arm measured."""
    rows = published_rows() if rows is None else rows
    runs: dict[tuple[str, str, str], list[Stored]] = {}
    for item in stored:
        runs.setdefault(
            (item.record.recipe, item.record.task, arm_of(item.record, pretrained=item.pretrained)), []
        ).append(item)
    recipes = {(recipe, task) for recipe, task, _ in runs}
    followed = {(row.block, row.task) for row in rows if (row.recipe, row.task) in recipes}
    return tuple(
        _check(row, runs.get((row.recipe, row.task, row.arm), [])) for row in rows if (row.block, row.task) in followed
    )


def _check(row: Published, mine: Sequence[Stored]) -> PublishedCheck:
    values: list[float] = []
    left_out: Counter[str] = Counter()
    for item in mine:
        if other := _other_settings(item, row):
            left_out["; ".join(other)] += 1
        elif math.isfinite(value := item.record.metrics.get(row.metric, math.nan)):
            values.append(value)
    said = tuple(f"{text} ({count} run{'s' * (count > 1)})" for text, count in left_out.items())
    return PublishedCheck(published=row, measured=summarise(values), left_out=said)


def _other_settings(item: Stored, row: Published) -> list[str]:
    """Return in what a run is not of the published setting."""
    record = item.record
    found = [text for text in record.departures if CHANGED.match(text)]
    if item.choice is not None:
        found = [text for text in found if not text.startswith(f"run.optim.{LR_FLAG}: ")]
    if record.val_images != row.val_images:
        found.append(f"{record.val_images:,} validation images, not {row.val_images:,}")
    return found


def _complete(path: Path, fields: dict[str, Any], required: set[str], *, optional: set[str]) -> None:
    missing, unknown = sorted(required - set(fields)), sorted(set(fields) - required - optional)
    if missing or unknown:
        name = fields.get("recipe") or fields.get("arm") or fields
        raise ValueError(
            f"{path.name}: {name}: fields missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}."
        )
