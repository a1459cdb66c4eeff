"""The comparison as Markdown, LaTeX (booktabs), tidy CSV, JSON or a page; equal records give equal bytes."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from benchmark.compare.cells import Cell, cell_text, transfer_of
from benchmark.compare.comparison import OWN_TASK, Comparison, Row
from benchmark.compare.contrast import Contrast
from benchmark.compare.cost import ArmCost
from benchmark.compare.published import PublishedCheck
from benchmark.compare.records import Store, files_read
from benchmark.report import Format, escape
from benchmark.report.about import about
from benchmark.report.contrast_text import caution, judged, verdict_text
from benchmark.report.cost_table import cost_grid
from benchmark.report.escape import markdown, markdown_line, plain
from benchmark.report.html import to_html
from benchmark.report.protocols import PROTOCOLS_TITLE, protocol_grid
from benchmark.report.scaling import scaling_grid, scaling_points, write_scaling
from benchmark.report.tables import (
    DASH,
    FULL_SCALE_TITLE,
    Grid,
    difference_grid,
    full_scale_grid,
    published_grid,
    rank_grid,
    record_lines,
    result_grid,
)
from benchmark.report.tuning import TUNING_TITLE, tuning_grid
from benchmark.report.use_table import USE_TITLE, use_csv, use_grid, use_json
from benchmark.report.verdict import verdicts
from engine.config import as_json
from files.frames import any_text
from files.naming import refuse_overwriting
from files.writing import replacing

SUFFIXES: dict[Format, str] = {"md": ".md", "csv": ".csv", "json": ".json", "latex": ".tex", "html": ".html"}
SCALING_NAME = "scaling.md"
DECLARED = ("pretrain_seeds", "margins", "looks", "groups")
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
    "[": "{[}",  # behind the end of a row it would be an argument, as would a star
    "*": "{*}",
}


def to_markdown(comparison: Comparison) -> str:
    """Return tables, verdicts and the account of the records for GitHub."""
    first = about(comparison)
    parts = ["## What the verdicts are about", _bullets(first)] if first else []
    parts += [_md_grid(title, grid) for title, grid in _grids(comparison).items()]
    parts += ["## Verdict", _bullets(verdicts(comparison)), "## Records", _bullets(record_lines(comparison))]
    return "\n\n".join(parts) + "\n"


def to_latex(comparison: Comparison) -> str:
    """Return tables for a document with the booktabs and graphicx packages; verdicts and records follow as comments."""
    tables = [_latex_table(grid) for grid in _grids(comparison).values()]
    first = [f"% {plain(line)}" for line in about(comparison)]
    remarks = [f"% {plain(line)}" for line in (*verdicts(comparison), *record_lines(comparison))]
    head = "\n".join(["% needs \\usepackage{booktabs,graphicx}", *first])
    return "\n\n".join([head, *tables, "\n".join(remarks)]) + "\n"


def to_json(comparison: Comparison) -> str:
    """Return rows with their contrasts, costs, published values, searched rates, verdicts, the account of the records.

    A number that is missing is null; the seeds are keys of objects, as text.
    """
    content: dict[str, Any] = {
        "about": about(comparison),
        "declared": {name: as_json(comparison.store.plan)[name] for name in DECLARED},
        "arms": comparison.arms,
        "rows": [
            {**_row(row), "missing": row.missing, "arms": {arm: _summary(row, arm) for arm in comparison.arms}}
            for row in comparison.rows
        ],
        "costs": [{**as_json(cost), "quality": _qualities(comparison, cost.arm)} for cost in comparison.costs],
        "cost_of_use": use_json(comparison),
        "supervised_own_task_top1": comparison.own_task.top1,
        "published": [
            {**as_json(check), "difference": check.difference, "outside": check.outside}
            for check in comparison.published
        ],
        "published_full_scale": as_json(table) if (table := comparison.store.plan.published) is not None else None,
        "searches": [{**as_json(choice), "edge": choice.edge} for choice in comparison.store.choices],
        "verdicts": verdicts(comparison),
        "records": record_lines(comparison),
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return one number per line: table, task, metric, arm, statistic, seed, n, value, note.

    A text that a spreadsheet would compute has a single quote before it.
    """
    with any_text():
        frame = to_frame(comparison)
        for name in frame.columns.difference(["seed", "n", "value"]):
            frame[name] = [escape.csv(cell) if isinstance(cell, str) else cell for cell in frame[name]]
        return frame.to_csv(index=False, lineterminator="\n")


def to_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the numbers of the tables in long form; a missing cell is there with n = 0 and no value."""
    head = ("about", "all", "all", f"{comparison.claim}-{comparison.against}", "text", None, None, None)
    rows: list[tuple[object, ...]] = [(*head, line) for line in about(comparison)]
    for row in comparison.rows:
        rows += _result_rows(row, comparison.arms)
    own = comparison.own_task.top1
    rows.append(("pretraining", "supervised", "top1", OWN_TASK, "lowest", None, None, own, ""))
    for cost in comparison.costs:
        rows += _cost_rows(cost)
    rows += use_csv(comparison)
    for check in comparison.published:
        rows += _published_rows(check)
    if (table := comparison.store.plan.published) is not None:
        rows += [
            ("published at full scale", row.variant, name, row.arm, "published", None, None, value, table.source)
            for row in table.rows
            for name, value in row.values.items()
        ]
    with any_text():
        return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "n": "Int64", "value": "float64"})


def to_scaling(comparison: Comparison) -> str:
    """Return transfer against model size and samples seen for GitHub. Raises ValueError where nothing is scaled."""
    return _md_grid("Scaling", scaling_grid(comparison)) + "\n"


EXPORTS: dict[Format, Callable[[Comparison], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "latex": to_latex,
    "html": to_html,
    "scaling": to_scaling,
}


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write table.md, .csv, .json, .tex and .html into a folder and return their paths.

    Where a method was pre-trained in two sizes or for two lengths also scaling.md, and scaling.png beside it.
    """
    paths = [write_text(folder / f"table{suffix}", EXPORTS[form](comparison)) for form, suffix in SUFFIXES.items()]
    if scaling_points(comparison):
        paths += write_scaling(folder / SCALING_NAME, to_scaling(comparison), comparison)
    return paths


def write_export(path: Path, text: str, store: Store) -> Path:
    """Write an export atomically and return its path. Raises ValueError where it would be written over what is read."""
    refuse_overwriting([path], files_read(store))
    return write_text(path, text)


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def escape_latex(text: str) -> str:
    """Return the text with LaTeX's special characters escaped, signed numbers in math and a lone dash as an en dash."""
    escaped = "".join(_LATEX.get(character, character) for character in plain(text))
    escaped = re.sub(rf"(?<!\S){DASH}(?!\S)", "--", escaped)
    return re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", escaped)


def _grids(comparison: Comparison) -> dict[str, Grid]:
    """Return the tables by their titles; published values have tables of their own, and only where there are any."""
    grids = {
        "Transfer": result_grid(comparison),
        "Differences": difference_grid(comparison),
        "Cost": cost_grid(comparison),
    }
    if (use := use_grid(comparison)) is not None:
        grids[USE_TITLE] = use
    if (ranks := rank_grid(comparison)) is not None:
        grids["Ranks"] = ranks
    if (protocols := protocol_grid(comparison)) is not None:
        grids[PROTOCOLS_TITLE] = protocols
    if (tuning := tuning_grid(comparison)) is not None:
        grids[TUNING_TITLE] = tuning
    if (published := published_grid(comparison)).rows:
        grids["Published, not measured here"] = published
    if (full_scale := full_scale_grid(comparison)) is not None:
        grids[FULL_SCALE_TITLE] = full_scale
    return grids


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {cell_text(name) if isinstance(name, tuple) else name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(row: Row) -> dict[str, Any]:
    metric = row.metric
    return {
        "task": row.task,
        "kind": row.line.kind,
        "metric": metric.name,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "values": row.values,
        "contrasts": [
            {**as_json(item), "metric": metric.name, "judged": judged(item), "caution": caution(item)}
            for item in row.contrasts
        ],
        "refused": row.refused,
        "claim": row.claim,
        "against": row.others[0],
        "others": row.others,
    }


def _qualities(comparison: Comparison, arm: str) -> dict[str, Any]:
    """Return what an arm reached in each task's first metric."""
    leading = {line.label: comparison.leading(line.label) for line in comparison.lines}
    return {task: {"metric": row.metric.name, "summary": _summary(row, arm)} for task, row in leading.items()}


def _summary(row: Row, arm: str) -> dict[str, Any] | None:
    summary = row.summary(arm)
    return None if summary is None else as_json(summary)


def _md_grid(title: str, grid: Grid) -> str:
    head = [markdown(text) for text in grid.head]
    rows = [[markdown(text) for text in row] for row in grid.rows]
    caption = markdown_line(grid.caption)
    table = tabulate(rows, head, tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([f"## {title}", caption, table, *([_bullets([*grid.notes])] if grid.notes else [])])


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {markdown_line(line)}" for line in lines)


def _latex_table(grid: Grid) -> str:
    columns = "ll" + "r" * (len(grid.head) - 2)
    lines = [" & ".join(escape_latex(text) for text in row) + r" \\" for row in grid.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(grid.caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(escape_latex(text) for text in grid.head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par {escape_latex(note)}" for note in grid.notes),
            r"\end{table}",
        ]
    )


def _result_rows(row: Row, arms: tuple[str, ...]) -> list[tuple[object, ...]]:
    head = ("transfer", row.task, row.metric.name)
    rows: list[tuple[object, ...]] = []
    for arm in arms:
        rows += [_value((*head, arm), cell, value) for cell, value in row.values[arm].items()]
        summary = row.summary(arm)
        n = summary.n if summary else 0
        rows.append((*head, arm, "mean", None, n, summary.mean if summary else None, ""))
        rows.append((*head, arm, "sd", None, n, summary.sd if summary else None, ""))
    for item in row.contrasts:
        rows += _contrast_rows(item)
    if row.headline is None:
        note = f"refused: {'; '.join(row.refused)}" if row.refused else ""
        rows.append((*head, f"{row.claim}-{row.others[0]}", "mean", None, 0, None, note))
    return rows


def _value(head: tuple[object, ...], cell: Cell, value: float) -> tuple[object, ...]:
    """Return the row of one run's value; the note has its pre-training's seed where they are crossed."""
    note = "" if isinstance(cell, int) else f"pre-training seed {cell[0]}"
    return (*head, "value", transfer_of(cell), None, value, note)


def _contrast_rows(item: Contrast) -> list[tuple[object, ...]]:
    head = ("transfer", item.task, item.metric.name, f"{item.arm}-{item.reference}")
    rows = [_value(head, cell, value) for cell, value in item.per_seed.items()]
    low, high = item.interval or (None, None)
    exact, wanted, parts = item.permutation, item.needed, item.components
    numbers = {
        "mean": item.mean,
        "sd": item.sd,
        "ci95_low": low,
        "ci95_high": high,
        "p": item.p,
        "p_permutation": exact.p if exact else None,
        "p_permutation_smallest": exact.smallest if exact else None,
        "p_holm": item.adjusted_p,
        "margin": item.margin,
        "p_equivalence": item.p_equivalence,
        "p_equivalence_holm": item.adjusted_p_equivalence,
        "look": item.look.number if item.look else None,
        "higher_is_better": float(item.metric.higher_is_better),
        "images": item.images if item.grouped is None else item.grouped,
        "groups": None if item.grouped is None else item.images,
        "variance_of_mean_seeds": parts.of_seeds if parts else None,
        "variance_of_mean_transfers": parts.of_transfers if parts and parts.transfers else None,
        "variance_of_mean_images": parts.of_images if parts else None,
        "seeds_to_settle": wanted.seeds if wanted else None,
        "transfers_to_settle": wanted.transfers if wanted else None,
        "images_to_settle": wanted.images if wanted else None,
    }
    note = "" if item.verdict is None else verdict_text(item)
    return rows + [
        (*head, name, None, item.n, value, note if name == "mean" else "") for name, value in numbers.items()
    ]


def _published_rows(check: PublishedCheck) -> list[tuple[object, ...]]:
    row, measured = check.published, check.measured
    head = ("published", row.task, row.metric, row.arm)
    note = f"{row.recipe}: {row.source}, {row.table}"
    outcome = "not measured" if measured is None else "outside" if check.outside else "within"
    return [
        (*head, "published", None, None, row.value, note),
        (*head, "tolerance", None, None, row.tolerance, row.tolerance_reason),
        (*head, "measured", None, measured.n if measured else 0, measured.mean if measured else None, outcome),
    ]


FLOPS_NOTE = "estimate: 3 x the forward MACs of what is trained + those of what is frozen, per sample"


def _cost_rows(cost: ArmCost) -> list[tuple[object, ...]]:
    names = ("parameters", "samples_seen", "training_flops", "seconds", "images_per_second", "peak_memory_bytes")
    rows: list[tuple[object, ...]] = []
    for name in names:
        note = FLOPS_NOTE if name == "training_flops" else ""
        rows.append(("cost", "pretraining", name, cost.arm, "mean", None, cost.pretrainings, getattr(cost, name), note))
    for task, summary in cost.transfer_seconds.items():
        n, mean = (summary.n, summary.mean) if summary else (0, None)
        rows.append(("cost", task, "seconds", cost.arm, "mean", None, n, mean, ""))
    return rows
