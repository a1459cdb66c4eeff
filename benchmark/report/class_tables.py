"""Scores per class of every arm, from the per_class.csv that detection and segmentation runs leave."""

from pathlib import Path

import pandas as pd

from benchmark.compare.comparison import Comparison
from benchmark.compare.lines import Line
from benchmark.report.names import title
from benchmark.report.tables import DASH, Grid
from files.frames import any_text
from metrics.metric import Metric

NAME = "per_class.csv"
PERCENTAGE = Metric(name="score of a class")


def class_grids(comparison: Comparison, notes: list[str]) -> list[Grid]:
    """Return a table per line: mean score of every class and arm over seeds, the largest gain of the claim's arm first.

    A task without such a file is left out; so is a file that cannot be read, with a line in `notes`, and one that is
    damaged.
    """
    with any_text():
        found = [_class_grid(comparison, line, notes) for line in comparison.lines]
    return [grid for grid in found if grid is not None]


def _class_grid(comparison: Comparison, line: Line, notes: list[str]) -> Grid | None:
    column = line.scores.class_score
    if column is None:
        return None
    scores: dict[str, list[pd.Series]] = {}
    for item in comparison.store.completed:
        if item.line != line or (path := item.file(NAME)) is None:
            continue
        try:
            scores.setdefault(item.arm, []).append(_scores(path, column))
        except (ValueError, OSError) as error:
            notes.append(f"Scores of classes left out: {error}")
    scores = {arm: each for arm, each in scores.items() if each}
    if not scores:
        return None
    arms = [arm for arm in comparison.arms if arm in scores]
    # a class that one run did not score has no mean: an average over other runs would compare other images
    means = pd.DataFrame({arm: pd.concat(scores[arm], axis=1).mean(axis=1, skipna=False) for arm in arms})
    first, second = comparison.claim, comparison.against
    gain = f"{title(first)} - {title(second)}"
    if {first, second} <= set(arms):
        means[gain] = means[first] - means[second]
        means = means.sort_values(gain, ascending=False, kind="stable")
    return Grid(
        caption=f"{line.label}: {column} of each class in percent, mean over seeds, without intervals.",
        head=("class", *(title(name) for name in means.columns)),
        rows=tuple(
            (str(label), *(_cell(value, sign=name == gain) for name, value in zip(means.columns, values, strict=True)))
            for label, values in zip(means.index, means.to_numpy().tolist(), strict=True)
        ),
    )


def _scores(path: Path, column: str) -> pd.Series:
    try:
        table = pd.read_csv(path, dtype={"name": str, column: float}, keep_default_na=False, na_values={column: [""]})
    except ValueError as error:  # of pandas, without the file
        raise ValueError(f"{path}: {error}") from error
    if missing := {"name", column} - set(table.columns):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; run the evaluation again.")
    if (twice := table["name"].duplicated()).any():
        raise ValueError(f"{path}: {table['name'][twice].iloc[0]!r} comes twice; run the evaluation again.")
    return table.set_index("name")[column]


def _cell(value: float, *, sign: bool) -> str:
    if value != value:  # no number
        return DASH
    return PERCENTAGE.signed(value) if sign else PERCENTAGE.text(value)
