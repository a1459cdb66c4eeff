"""Scores per class of every arm, from the per_class.csv that detection and segmentation runs leave."""

import pandas as pd

from benchmark.cells import DASH, TITLES, Grid, signed
from benchmark.table import FIRST, SECOND, Comparison

NAME = "per_class.csv"
SCORES = {"detection": "box_ap", "segmentation": "iou"}  # the column of per_class.csv that is shown


def class_grids(comparison: Comparison) -> list[Grid]:
    """Return a table per task: mean score of every class and arm over seeds, the largest gain of MAE first.

    A task without such a file is left out. Raises ValueError for a file without the columns, which it names.
    """
    found = (_class_grid(comparison, task) for task in SCORES)
    return [grid for grid in found if grid is not None]


def _class_grid(comparison: Comparison, task: str) -> Grid | None:
    scores: dict[str, list[pd.Series]] = {}
    for item in comparison.store.completed:
        path = item.folder / NAME
        if item.record.task != task or not path.is_file():
            continue
        table = pd.read_csv(path, dtype={"name": str}, keep_default_na=False, na_values={SCORES[task]: [""]})
        if missing := {"name", SCORES[task]} - set(table.columns):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; run the evaluation again.")
        scores.setdefault(item.record.weights_source, []).append(table.set_index("name")[SCORES[task]])
    if not scores:
        return None
    arms = [arm for arm in comparison.arms if arm in scores]
    # a class that one run did not score has no mean: an average over other runs would compare other images
    means = pd.DataFrame({arm: pd.concat(scores[arm], axis=1).mean(axis=1, skipna=False) for arm in arms})
    gain = f"{TITLES[FIRST]} - {TITLES[SECOND]}"
    if {FIRST, SECOND} <= set(arms):
        means[gain] = means[FIRST] - means[SECOND]
        means = means.sort_values(gain, ascending=False, kind="stable")
    return Grid(
        caption=f"{task}: {SCORES[task]} of each class in percent, mean over seeds, without intervals.",
        head=("class", *(TITLES.get(name, name) for name in means.columns)),
        rows=tuple(
            (str(name), *(_cell(column, value) for column, value in zip(means.columns, values, strict=True)))
            for name, values in zip(means.index, means.to_numpy().tolist(), strict=True)
        ),
    )


def _cell(column: str, value: float) -> str:
    if value != value:  # no number
        return DASH
    return signed(value) if column not in TITLES and " - " in column else f"{value:.2f}"
