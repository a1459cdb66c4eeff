"""What trained models take in use, as their records have it: a row per task, arm, batch and conditions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmark.compare.comparison import Comparison
from benchmark.compare.seeds import Summary
from engine.records.use import BatchUse, Conditions, Spread, Use, spread
from metrics.metric import Metric

CONDITIONS = {
    "devices": "device",
    "numbers of threads": "threads",
    "arithmetic": "precision",
    "versions of PyTorch": "torch",
    "images": "images_sha256",
}  # fields of Conditions, as a note says them


@dataclass(frozen=True, kw_only=True)
class UseRow:
    """The runs of an arm on a task that were measured alike; None in all that follows `of` where none was."""

    task: str
    arm: str
    runs: int
    """Measured alike."""
    of: int
    """Completed."""
    metric: Metric
    """The task's first."""
    quality: Summary | None
    """Of that metric over all completed runs of the arm; None where it has no value."""
    conditions: Conditions | None = None
    sizes: tuple[tuple[int, int], ...] | None = None
    """Height and width in pixels that the model is given."""
    batch: int | None = None
    calls: int | None = None
    """Timed ones, of all these runs."""
    seconds: Spread | None = None
    """Of a call, over all timed calls of these runs."""
    images_per_second: float | None = None
    """The batch over the median of a call."""
    peak_bytes: int | None = None
    """Most of these runs; None where one of them does not know it."""
    parameters: int | None = None
    """None where these runs have not the same number."""
    weights_bytes: int | None = None
    """None where these runs have not the same number."""
    checkpoint_bytes: int | None = None
    """Most of these runs."""


def use_rows(comparison: Comparison) -> tuple[UseRow, ...]:
    """Return the rows, none where no run was measured; an arm that was not has a row without numbers."""
    stored = [item for item in comparison.store.completed if item.line is not None]
    if not any(item.record.use for item in stored):
        return ()
    rows: list[UseRow] = []
    for line in comparison.lines:
        leading = comparison.leading(line.label)
        for arm in comparison.arms:
            mine = [item.record for item in stored if item.line == line and item.arm == arm]
            alike: dict[tuple[object, ...], list[tuple[Use, BatchUse]]] = {}
            for record in mine:
                for key, found in _keyed(record.use):
                    alike.setdefault((*key,), []).append(found)
            of = UseRow(
                task=line.label, arm=arm, runs=0, of=len(mine), metric=leading.metric, quality=leading.summary(arm)
            )
            rows += [_row(of, found) for _, found in sorted(alike.items(), key=_order)]
            rows += [of] if mine and not alike else []
    return tuple(rows)


def comparable(rows: tuple[UseRow, ...], task: str) -> dict[str, UseRow]:
    """Return the rows of a task's smallest batch by arm; none where they were measured under several conditions."""
    mine = [row for row in rows if row.task == task and row.batch is not None]
    least = [row for row in mine if row.batch == min(each.batch or 0 for each in mine)]
    conditions = {(row.conditions, frozenset(row.sizes or ())) for row in least}
    return {row.arm: row for row in least} if len(conditions) == 1 else {}


def apart(rows: tuple[UseRow, ...]) -> list[str]:
    """Return a line per task whose rows were measured under several conditions, which are not to be compared."""
    lines = []
    for task in dict.fromkeys(row.task for row in rows):
        mine = [row for row in rows if row.task == task and row.conditions is not None]
        known = [row.conditions for row in mine if row.conditions is not None]
        differ = [name for name, field in CONDITIONS.items() if len({getattr(each, field) for each in known}) > 1]
        if len({frozenset(row.sizes or ()) for row in mine if row.batch == mine[0].batch}) > 1:
            differ.append("image sizes")
        if differ:
            lines.append(
                f"{task}: measured with different {', '.join(differ)}; only rows that agree in these can be compared."
            )
    return lines


def _keyed(uses: tuple[Use, ...]) -> Iterator[tuple[tuple[object, ...], tuple[Use, BatchUse]]]:
    """Yield what runs must share to stand in one row, and what was measured; the last where a run has it twice."""
    found = {(use.conditions, each.batch, each.sizes): (use, each) for use in uses for each in use.batches}
    yield from found.items()


def _order(item: tuple[tuple[object, ...], list[tuple[Use, BatchUse]]]) -> tuple[object, ...]:
    use, each = item[1][0]
    on = use.conditions
    return on.device, on.threads, on.precision, on.torch, on.images_sha256, each.batch, each.sizes


def _row(of: UseRow, found: list[tuple[Use, BatchUse]]) -> UseRow:
    (use, each), uses = found[0], [use for use, _ in found]
    seconds = [second for _, batch in found for second in batch.seconds]
    middle = spread(seconds)
    peaks = [batch.peak_bytes for _, batch in found]
    parameters, weights = {use.parameters for use in uses}, {use.weights_bytes for use in uses}
    return replace(
        of,
        runs=len(found),
        conditions=use.conditions,
        sizes=each.sizes,
        batch=each.batch,
        calls=len(seconds),
        seconds=middle,
        images_per_second=each.batch / middle.median,
        peak_bytes=None if None in peaks else max(peak for peak in peaks if peak is not None),
        parameters=use.parameters if len(parameters) == 1 else None,
        weights_bytes=use.weights_bytes if len(weights) == 1 else None,
        checkpoint_bytes=max(use.checkpoint_bytes for use in uses),
    )
