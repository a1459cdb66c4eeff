"""The differences between the arms of some runs as a data frame."""

import math
import warnings
from pathlib import Path

import pandas as pd

from benchmark.compare.comparison import Row, compare
from benchmark.compare.contrast import Contrast
from benchmark.compare.records import open_store
from mae_transfer.tasks import TASKS

COLUMNS = (
    "task", "metric", "unit", "higher_is_better", "arm", "reference", "by_seed", "difference", "low", "high", "images",
    "p", "adjusted_p", "verdict",
)  # fmt: skip


def differences(folder: Path) -> pd.DataFrame:
    """Return what `mae_transfer.read_differences` says, and raise what it does."""
    store = open_store(folder, TASKS)
    made = compare(store)
    refused = [f"{row.task}: not compared: {reason}" for row in made.rows if row.primary for reason in row.refused]
    left_out = [f"{item.folder}: not compared: {item.record.status}" for item in store.incomplete]
    no_number = [f"{text}: no finite number; left out" for text in made.not_finite]
    alone = [f"{text}: images taken as they are, intervals over seeds alone" for text in made.not_resampled]
    said = [*store.unreadable, *left_out, *refused, *no_number, *alone]
    for text in said:
        warnings.warn(text, stacklevel=3)
    rows = [_values(row, item) for row in made.rows for item in row.contrasts]
    if not rows:
        why = f" {refused[0]}." if refused else " Two arms with a common seed are needed."
        raise ValueError(f"{folder}: nothing in it can be compared.{why}")
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _values(row: Row, item: Contrast) -> tuple[object, ...]:
    low, high = item.interval or (math.nan, math.nan)
    by_seed = tuple(item.per_seed.values())
    return (
        row.task, item.metric.name, item.metric.unit, item.metric.higher_is_better, item.arm, item.reference, by_seed,
        item.mean, low, high, item.images, item.p, item.adjusted_p, item.verdict,
    )  # fmt: skip
