"""The comparison as Markdown, LaTeX (booktabs) or tidy CSV; equal records give equal bytes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd
from tabulate import tabulate

from benchmark.cells import DASH, Grid, cost_grid, record_lines, result_grid
from benchmark.table import FIRST, SECOND, ArmCost, Comparison, Row
from benchmark.verdict import verdicts
from engine.files import replacing

Format = Literal["md", "csv", "latex"]
SUFFIXES: dict[Format, str] = {"md": ".md", "csv": ".csv", "latex": ".tex"}
COLUMNS = ["table", "task", "metric", "arm", "statistic", "seed", "n", "value", "note"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}


def to_markdown(comparison: Comparison) -> str:
    """Return tables, verdicts and the account of the records for GitHub."""
    parts = []
    for title, grid in (("Transfer", result_grid(comparison)), ("Cost", cost_grid(comparison))):
        head = [_md_cell(text) for text in grid.head]
        rows = [[_md_cell(text) for text in row] for row in grid.rows]
        parts += [f"## {title}", grid.caption, tabulate(rows, head, tablefmt="pipe", disable_numparse=True)]
    parts += ["## Verdict", _bullets(verdicts(comparison)), "## Records", _bullets(record_lines(comparison))]
    return "\n\n".join(parts) + "\n"


def to_latex(comparison: Comparison) -> str:
    """Return two tables for a document with the booktabs package; verdicts and records follow as comments."""
    tables = [
        _latex_table(result_grid(comparison), text_columns=2),
        _latex_table(cost_grid(comparison), text_columns=1),
    ]
    remarks = [f"% {' '.join(line.split())}" for line in (*verdicts(comparison), *record_lines(comparison))]
    return "\n\n".join(["% needs \\usepackage{booktabs}", *tables, "\n".join(remarks)]) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return one number per line: table, task, metric, arm, statistic, seed, n, value, note."""
    return to_frame(comparison).to_csv(index=False, lineterminator="\n")


def to_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the numbers of both tables in long form; a missing cell is there with n = 0 and no value."""
    rows: list[tuple[object, ...]] = []
    for row in comparison.rows:
        rows += _result_rows(row, comparison.arms)
    own = comparison.own_task.top1
    rows.append(("pretraining", "supervised", "top1", SECOND, "lowest", None, None, own, ""))
    for cost in comparison.costs:
        rows += _cost_rows(cost)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "n": "Int64", "value": "float64"})


EXPORTS: dict[Format, Callable[[Comparison], str]] = {"md": to_markdown, "csv": to_csv, "latex": to_latex}


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write table.md, table.csv and table.tex into a folder and return their paths."""
    return [write_text(folder / f"table{SUFFIXES[form]}", export(comparison)) for form, export in EXPORTS.items()]


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def escape_latex(text: str) -> str:
    """Return the text with LaTeX's special characters escaped, signed numbers in math and a lone dash as an en dash."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    escaped = re.sub(rf"(?<!\S){DASH}(?!\S)", "--", escaped)
    return re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", escaped)


def _md_cell(text: str) -> str:
    # a bar ends the cell, and < opens a tag
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _latex_table(grid: Grid, *, text_columns: int) -> str:
    columns = "l" * text_columns + "r" * (len(grid.head) - text_columns)
    lines = [" & ".join(escape_latex(text) for text in row) + r" \\" for row in grid.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(grid.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(escape_latex(text) for text in grid.head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _result_rows(row: Row, arms: tuple[str, ...]) -> list[tuple[object, ...]]:
    head = ("transfer", row.task, row.metric)
    rows: list[tuple[object, ...]] = []
    for arm in arms:
        rows += [(*head, arm, "value", seed, None, value, "") for seed, value in row.values[arm].items()]
        summary = row.summary(arm)
        n = summary.n if summary else 0
        rows.append((*head, arm, "mean", None, n, summary.mean if summary else None, ""))
        rows.append((*head, arm, "sd", None, n, summary.sd if summary else None, ""))
    contrast, difference = f"{FIRST}-{SECOND}", row.difference
    if difference is None:
        note = f"refused: {'; '.join(row.refused)}" if row.refused else ""
        return [*rows, (*head, contrast, "mean", None, 0, None, note)]
    rows += [(*head, contrast, "value", seed, None, value, "") for seed, value in difference.per_seed.items()]
    low, high = difference.interval or (None, None)
    numbers = (("mean", difference.mean), ("t95_low", low), ("t95_high", high))
    return rows + [(*head, contrast, name, None, difference.n, value, "") for name, value in numbers]


def _cost_rows(cost: ArmCost) -> list[tuple[object, ...]]:
    names = ("parameters", "image_passes", "training_flops", "seconds", "images_per_second", "peak_memory_bytes")
    rows: list[tuple[object, ...]] = []
    for name in names:
        note = "estimate: 3 x the multiply-adds of the forward pass, per image" if name == "training_flops" else ""
        rows.append(("cost", "pretraining", name, cost.arm, "mean", None, cost.pretrainings, getattr(cost, name), note))
    for task, summary in cost.transfer_seconds.items():
        n, mean = (summary.n, summary.mean) if summary else (0, None)
        rows.append(("cost", task, "seconds", cost.arm, "mean", None, n, mean, ""))
    return rows
