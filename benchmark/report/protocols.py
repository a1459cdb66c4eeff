"""How the headline's verdict changes with the protocol, where a study runs a task in several."""

from benchmark.compare.comparison import Comparison, Row
from benchmark.compare.lines import fraction_text
from benchmark.report.contrast_text import verdict_text
from benchmark.report.names import title
from benchmark.report.tables import DASH, Grid

PROTOCOLS_TITLE = "Protocols"
CAPTION = (
    "{claim} minus {against} by protocol of a task, with 95 % intervals over seeds and test images. The correction "
    "counts every protocol as a task."
)


def protocol_grid(comparison: Comparison) -> Grid | None:
    """Return a row per task and protocol, and whether a task's verdicts are alike; None where no task has several."""
    rows: list[tuple[str, ...]] = []
    for task, protocols in comparison.store.plan.protocols.items():
        names = {made: name for name, made in protocols.items()}
        mine = [row for row in comparison.rows if row.primary and row.line.task in names]
        # a probe has two lines, a fraction of the labels one of its own
        lines = dict.fromkeys((row.line.kind, row.line.label_fraction) for row in mine)
        for line in lines or [None]:
            found: dict[str, Row | None] = dict.fromkeys(protocols)
            found |= {names[row.line.task]: row for row in mine if (row.line.kind, row.line.label_fraction) == line}
            rows += [_row(task, name, row, comparison) for name, row in found.items()]
            rows.append((task, "all", *[DASH] * 5, _together([*found.values()])))
    if not rows:
        return None
    claim, against = title(comparison.claim), title(comparison.against)
    return Grid(
        caption=CAPTION.format(claim=claim, against=against),
        head=("task", "protocol", "metric", claim, against, "difference", "95 % interval", "verdict"),
        rows=tuple(rows),
    )


def _row(task: str, name: str, row: Row | None, comparison: Comparison) -> tuple[str, ...]:
    if row is None:
        return (task, name, *[DASH] * 5, "not run")
    if row.line.label_fraction < 1:
        task = f"{task}, {fraction_text(row.line.label_fraction)}"
    means = []
    for arm in (comparison.claim, comparison.against):
        summary = row.summary(arm)
        means.append(DASH if summary is None else row.metric.text(summary.mean))
    item = row.headline
    if item is None:
        return (task, name, row.metric.label, *means, DASH, DASH, "refused" if row.refused else DASH)
    interval = DASH if item.interval is None else " to ".join(map(row.metric.signed, item.interval))
    verdict = DASH if item.verdict is None else verdict_text(item)
    return (task, name, row.metric.label, *means, row.metric.signed(item.mean), interval, verdict)


def _together(rows: list[Row | None]) -> str:
    """Return whether protocols agree."""
    contrasts = [None if row is None else row.headline for row in rows]
    said = [item.verdict for item in contrasts if item is not None and item.verdict is not None]
    if len(said) < len(rows):
        return f"{len(said)} of {len(rows)} protocols have a verdict"
    signs = {item.mean > 0 for item in contrasts if item is not None}
    alike = "the same verdict" if len({*said}) == 1 else "another verdict by the protocol"
    return f"{alike}, {'the same sign' if len(signs) == 1 else 'the sign changes'}"
