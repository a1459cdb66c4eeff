"""The table of what trained models take in use, where records have it."""

from benchmark.compare.comparison import Comparison
from benchmark.compare.use import UseRow, apart, use_rows
from benchmark.report.names import title
from benchmark.report.tables import DASH, Grid, mean_sd
from engine.config import as_json
from engine.records.use import sizes_text

USE_TITLE = "Cost of use"
USE_CAPTION = (
    "What a trained model takes when it is used, beside its quality (the task's first metric over all its runs). "
    "Measured (tools/measure_cost.py): a call on a batch of decoded and "
    "resized images, answers included. Median and quartiles over all timed calls of the runs that were measured alike; "
    "warm-up calls are left out. Memory: on a GPU the most that was allocated, on a CPU the most the process held, "
    "libraries included. The checkpoint holds the optimizer's state besides. A dash: not measured, or not known."
)
HEAD = (
    "task",
    "arm",
    "quality",
    "runs",
    "batch",
    "ms a call",
    "quartiles (ms)",
    "images/s in use",
    "peak memory in use (MiB)",
    "parameters (M)",
    "weights (MiB)",
    "checkpoint (MiB)",
    "image size",
    "device",
    "CPU threads",
    "arithmetic",
    "PyTorch",
)


def use_grid(comparison: Comparison) -> Grid | None:
    """Return the table, None where no record has a measurement; its notes say which rows are not to be compared."""
    rows = use_rows(comparison)
    if not rows:
        return None
    return Grid(caption=USE_CAPTION, head=HEAD, rows=tuple(map(_cells, rows)), notes=tuple(apart(rows)))


def use_json(comparison: Comparison) -> dict[str, object]:
    """Return rows and notes as plain values."""
    rows = use_rows(comparison)
    return {"rows": [{**as_json(row), "metric": row.metric.name} for row in rows], "notes": apart(rows)}


def use_csv(comparison: Comparison) -> list[tuple[object, ...]]:
    """Return a line per number: table, task, metric, arm, statistic, seed, n (runs), value, note (the conditions)."""
    lines: list[tuple[object, ...]] = []
    rows = use_rows(comparison)
    for row in rows:
        found = row.seconds
        numbers = {
            ("seconds_per_call", "median"): found and found.median,
            ("seconds_per_call", "quartile1"): found and found.low,
            ("seconds_per_call", "quartile3"): found and found.high,
            ("images_per_second", "median"): row.images_per_second,
            ("peak_memory_bytes", "max"): row.peak_bytes,
            ("parameters", "value"): row.parameters,
            ("weights_bytes", "value"): row.weights_bytes,
            ("checkpoint_bytes", "max"): row.checkpoint_bytes,
        }
        note = _conditions(row)
        n, mean = (row.quality.n, row.quality.mean) if row.quality else (0, None)
        lines.append(("cost of use", row.task, row.metric.name, row.arm, "mean", None, n, mean, ""))
        lines += [
            ("cost of use", row.task, metric, row.arm, statistic, None, row.runs, value, note)
            for (metric, statistic), value in numbers.items()
        ]
    head = ("cost of use", "all", "all", "all", "text", None, None, None)
    return [*lines, *((*head, line) for line in apart(rows))]


def _conditions(row: UseRow) -> str:
    on = row.conditions
    if on is None or row.sizes is None:
        return "not measured"
    return (
        f"batch {row.batch}, {sizes_text(row.sizes)} pixels, {row.calls} calls, {on.device}, {on.threads} CPU threads, "
        f"{on.precision}, PyTorch {on.torch}, images {on.images_sha256[:12]}"
    )


def _cells(row: UseRow) -> tuple[str, ...]:
    first = (row.task, title(row.arm), _quality(row), f"{row.runs} of {row.of}")
    on, found = row.conditions, row.seconds
    if on is None or found is None or row.sizes is None:
        return (*first, *[DASH] * (len(HEAD) - len(first)))
    return (
        *first,
        str(row.batch),
        f"{1e3 * found.median:.2f}",
        f"{1e3 * found.low:.2f} to {1e3 * found.high:.2f}",
        _number(row.images_per_second, 1, ".1f"),
        _number(row.peak_bytes, 2**20, ".0f"),
        _number(row.parameters, 1e6, ".2f"),
        _number(row.weights_bytes, 2**20, ".1f"),
        _number(row.checkpoint_bytes, 2**20, ".1f"),
        sizes_text(row.sizes),
        on.device,
        str(on.threads),
        on.precision,
        on.torch,
    )


def _quality(row: UseRow) -> str:
    """Return the metric and its mean and standard deviation over the seeds."""
    return f"{row.metric.label} {mean_sd(row.quality, row.metric)}"


def _number(value: float | None, unit: float, form: str) -> str:
    return DASH if value is None else format(value / unit, form)
