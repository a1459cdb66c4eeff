"""Scores per class as a table, `per_class.csv`."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from files.writing import replacing
from metrics.miou import class_scores


def write_per_class(
    path: Path, total_CC: np.ndarray, names: Sequence[str], *, boundary_CC: np.ndarray | None = None
) -> Path:
    """Write number, name, iou and acc in percent, and the pixels labelled, predicted and both, of every class.

    A score that a class does not have (see metrics.miou) is an empty cell. `boundary_CC` adds boundary_iou.
    """
    iou_C, accuracy_C = class_scores(total_CC)
    areas = total_CC.sum(axis=1), total_CC.sum(axis=0), total_CC.diagonal()
    columns = {"iou": iou_C, "acc": accuracy_C}
    if boundary_CC is not None:
        columns["boundary_iou"] = class_scores(boundary_CC)[0][:-1]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", *columns, "labelled", "predicted", "hit"])
        for number, name in enumerate(names):
            values = ["" if np.isnan(column[number]) else f"{column[number]:.4f}" for column in columns.values()]
            writer.writerow([number, name, *values, *(int(area[number]) for area in areas)])
    return path
