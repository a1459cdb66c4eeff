"""What each cell of the printed tables says, as plain text; `export` puts it into a format."""

from dataclasses import dataclass

from benchmark.stats import Summary
from benchmark.table import METRICS, ArmCost, Comparison, Row

DASH = "-"
TITLES = {"random": "random init", "supervised": "supervised", "mae": "MAE"}
CAPTION = (
    "Transfer of one ViT from different weights, in percent: mean \N{PLUS-MINUS SIGN} standard deviation over the "
    "transfer seeds (n), on the validation images."
)
COST_CAPTION = (
    "Cost of each arm. Multiply-adds for training on one image are an estimate: three times the counted forward pass "
    "(forward and backward)."
)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def result_grid(comparison: Comparison) -> Grid:
    """Return the table of results: one row per task and metric."""
    head = ("task", "metric", *(TITLES.get(arm, arm) for arm in comparison.arms))
    return Grid(
        caption=CAPTION,
        head=(*head, "MAE minus supervised (by seed)", "95 % t interval (n)"),
        rows=tuple(_result_row(row, comparison.arms) for row in comparison.rows),
    )


def cost_grid(comparison: Comparison) -> Grid:
    """Return the table of costs: one row per arm."""
    head = (
        "arm",
        "pre-trainings",
        "parameters (M)",
        "image passes",
        "G multiply-adds per image, training (estimate)",
        "pre-training (s)",
        "images/s",
        "peak memory (MiB)",
        *(f"{task} (s)" for task in METRICS),
    )
    return Grid(caption=COST_CAPTION, head=head, rows=tuple(_cost_row(cost) for cost in comparison.costs))


def record_lines(comparison: Comparison) -> list[str]:
    """Return what the tables are made from, and every record that they leave out."""
    store = comparison.store
    seeds = ", ".join(str(seed) for seed in comparison.seeds) or "none"
    read = len(store.stored)
    lines = [
        f"Transfer seeds: {seeds}. {read} records read, {len(store.completed)} of them completed; "
        f"{len(store.unreadable)} not readable."
    ]
    pretrained = [f"{cost.arm} {cost.pretrainings}" for cost in comparison.costs if cost.pretrainings]
    if pretrained:
        lines.append(
            f"Pre-trainings recorded: {', '.join(pretrained)}. Deviations and intervals speak of the transfer seeds "
            "alone, not of what another pre-training would give."
        )
    lines += [
        f"Arm {arm}: its pre-training is not among the records, so its images and budget are not checked."
        for arm in comparison.unknown_origin
    ]
    refused = dict.fromkeys(f"Refused, {row.task}: {problem}." for row in comparison.rows for problem in row.refused)
    lines += refused
    lines += [f"Not a number: {text}." for text in comparison.not_finite]
    for item in store.incomplete:
        record = item.record
        why = f": {record.error}" if record.error else ""
        status = "killed or still running" if record.status == "running" else record.status
        lines.append(f"Left out, {status} at step {record.steps} of {record.total_steps}: {item.folder}{why}")
    lines += [f"Left out, not readable: {text}" for text in store.unreadable]
    return lines


def signed(value: float) -> str:
    """Return a difference with its sign and two decimals; what rounds to zero is +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _result_row(row: Row, arms: tuple[str, ...]) -> tuple[str, ...]:
    return (row.task, row.metric, *(_mean_sd(row.summary(arm)) for arm in arms), *_difference(row))


def _mean_sd(summary: Summary | None) -> str:
    if summary is None:
        return DASH
    sd = DASH if summary.sd is None else f"{summary.sd:.2f}"
    return f"{summary.mean:.2f} \N{PLUS-MINUS SIGN} {sd} ({summary.n})"


def _difference(row: Row) -> tuple[str, str]:
    if row.refused:
        more = f" (and {len(row.refused) - 1} more)" if len(row.refused) > 1 else ""
        return f"refused: {row.refused[0]}{more}", DASH
    if row.difference is None:
        return DASH, DASH
    each = ", ".join(signed(value) for value in row.difference.per_seed.values())
    interval = row.difference.interval
    spread = DASH if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"
    return f"{signed(row.difference.mean)} ({each})", f"{spread} ({row.difference.n})"


def _cost_row(cost: ArmCost) -> tuple[str, ...]:
    return (
        TITLES.get(cost.arm, cost.arm),
        str(cost.pretrainings) if cost.pretrainings else DASH,
        _number(cost.parameters, 1e6, ".2f"),
        _number(cost.image_passes, 1, ",.0f"),
        _number(cost.training_flops, 1e9, ".3f"),
        _number(cost.seconds, 1, ".0f"),
        _number(cost.images_per_second, 1, ".0f"),
        _number(cost.peak_memory_bytes, 2**20, ".0f"),
        *(
            DASH if summary is None else f"{summary.mean:.0f} ({summary.n})"
            for summary in cost.transfer_seconds.values()
        ),
    )


def _number(value: float | None, unit: float, form: str) -> str:
    return DASH if value is None else format(value / unit, form)
