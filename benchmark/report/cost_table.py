"""The table of what each arm took, beside what it gave: pre-training, and of each task quality, training and use."""

from dataclasses import dataclass

from benchmark.compare.comparison import Comparison
from benchmark.compare.cost import ArmCost
from benchmark.compare.lines import Line
from benchmark.compare.use import UseRow, comparable, use_rows
from benchmark.report.names import title
from benchmark.report.tables import DASH, Grid, mean_sd

COST_CAPTION = (
    "Cost of each arm beside its quality. MACs for training on one image are an estimate: three times the counted "
    "forward pass of what is trained (forward and backward) and once that of what is frozen. Of each task: its first "
    "metric, mean \N{PLUS-MINUS SIGN} standard deviation over the seeds (n), and the mean seconds of training; a dash "
    "where nothing is trained, as by a probe of frozen features."
)
USE_CAPTION = (
    " In use: the median time of a call on the smallest batch that was measured, for each of its images, and the most "
    "memory meanwhile; the table of the cost of use has the rest, and the conditions."
)
FIRST = (
    "arm",
    "pre-trained on",
    "pre-trainings",
    "parameters (M)",
    "samples seen",
    "GMACs per image, training (estimate)",
    "pre-training (s)",
    "images/s",
    "peak memory (MiB)",
)


def cost_grid(comparison: Comparison) -> Grid:
    """Return the table of costs: one row per arm."""
    used = use_rows(comparison)
    found = {line.label: comparable(used, line.label) for line in comparison.lines}
    columns = [column for line in comparison.lines for column in _columns(comparison, line, found[line.label])]
    measured = {row.task for row in used if row.batch is not None}
    notes = tuple(
        f"{task}: what a call takes was measured under several conditions, and stands in the table of the cost of use "
        "alone."
        for task, rows in found.items()
        if task in measured and not rows
    )
    return Grid(
        caption=COST_CAPTION + USE_CAPTION * any(found.values()),
        head=(*FIRST, *(column.name for column in columns)),
        rows=tuple((*_first(cost), *(column.cells[cost.arm] for column in columns)) for cost in comparison.costs),
        notes=notes,
    )


@dataclass(frozen=True)
class _Column:
    name: str
    cells: dict[str, str]
    """By arm."""


def _columns(comparison: Comparison, line: Line, used: dict[str, UseRow]) -> list[_Column]:
    """Return the columns of a task: quality, seconds of training, and what a call takes where that was measured."""
    task, leading = line.label, comparison.leading(line.label)
    metric = leading.metric
    quality = {arm: mean_sd(leading.summary(arm), metric) for arm in comparison.arms}
    took = {cost.arm: cost.transfer_seconds[task] for cost in comparison.costs}
    seconds = {arm: DASH if each is None else f"{each.mean:.0f} ({each.n})" for arm, each in took.items()}
    columns = [_Column(f"{task}: {metric.label}", quality), _Column(f"{task}: training (s)", seconds)]
    if used:
        batch = next(iter(used.values())).batch
        arms = {arm: used.get(arm) for arm in comparison.arms}
        times = {arm: DASH if row is None else _milliseconds(row) for arm, row in arms.items()}
        peaks = {arm: DASH if row is None else _number(row.peak_bytes, 2**20, ".0f") for arm, row in arms.items()}
        columns.append(_Column(f"{task}: in use (ms per image, batch {batch})", times))
        columns.append(_Column(f"{task}: peak memory in use (MiB)", peaks))
    return columns


def _milliseconds(row: UseRow) -> str:
    """Return the median time of a call for one of its images."""
    return _number(None if row.images_per_second is None else 1 / row.images_per_second, 1e-3, ".2f")


def _first(cost: ArmCost) -> tuple[str, ...]:
    return (
        title(cost.arm),
        cost.pretrained_on or DASH,
        str(cost.pretrainings) if cost.pretrainings else DASH,
        _number(cost.parameters, 1e6, ".2f"),
        _number(cost.samples_seen, 1, ",.0f"),
        _number(cost.training_flops, 1e9, ".3f"),
        _number(cost.seconds, 1, ".0f"),
        _number(cost.images_per_second, 1, ".0f"),
        _number(cost.peak_memory_bytes, 2**20, ".0f"),
    )


def _number(value: float | None, unit: float, form: str) -> str:
    return DASH if value is None else format(value / unit, form)
