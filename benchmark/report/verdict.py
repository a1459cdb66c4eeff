"""The outcome in plain words, whichever way it falls."""

from collections.abc import Sequence

from benchmark.compare.comparison import OWN_TASK, Comparison, Row
from benchmark.compare.contrast import Contrast
from benchmark.report.contrast_text import caution, images_text, judged, needed_text, outcome_text, seeds_text
from benchmark.report.names import listed, quoted, title
from benchmark.report.tables import lacking_text, p_text

LISTED = 10  # seeds whose differences are named one by one
NOTHING = "nothing was learned"
ORDER = ("supported", "contradicted", "equivalent within the margin", "inconclusive", NOTHING, "no comparison")


def task_verdict(row: Row) -> str:
    """Return the verdict on one row: the claim's arm (MAE) against the headline's other arms (supervised)."""
    head = f"{quoted(row.task)} ({row.metric.label}): "
    if row.refused:
        return f"{head}no verdict, the runs are not comparable: {'; '.join(row.refused)}."
    if not row.headlines:
        return f"{head}no verdict, {lacking_text(row)}."
    return head + " ".join(_sentence(item) for item in row.headlines)


def _sentence(item: Contrast) -> str:
    first, other, metric = title(item.arm), title(item.reference), item.metric
    said = f"{judged(item)}: {outcome_text(item)}"
    if item.floor:
        return f"{judged(item)}: no verdict, {needed_text(item)}."
    if item.verdict == "contradicted":
        said += f", {other} transfers better"
    if text := caution(item):
        said += f" (WARNING: {text})"
    each = ", ".join(metric.signed(value) for value in item.per_seed.values()) + " by seed; "
    each = each if len(item.per_seed) <= LISTED else ""
    images = f", {images_text(item)} images" if item.images is not None and item.grouped is None else ""
    images = f", {item.grouped:,} images in {item.images} groups" if item.grouped is not None else images
    text = f"{said}; {first} minus {other} {metric.signed(item.mean)} ({each}{seeds_text(item)}{images})"
    if item.interval is None:
        why = "no interval from one seed" if item.n == 1 else "no interval, the seeds do not differ"
        return f"{text}: {why}."
    low, high = item.interval
    seeds = {"one": "seeds", "tied": "pre-training and transfer seeds", "crossed": "pre-training and transfer seeds"}
    kind = "images" if item.grouped is None else "groups of images"
    over = seeds[item.design] + (f" and {kind}" if item.images is not None else ", the images as they are")
    text += f", 95 % interval {metric.signed(low)} to {metric.signed(high)} over {over}, p {p_text(item.p)}"
    text += f", {p_text(item.adjusted_p)} after Holm's correction"
    if item.look is not None and len(item.look.looks) > 1:
        at = f"look {item.look.number} of {len(item.look.looks)}" if item.look.number else "no look yet"
        text += f" and for the looks ({at})"
    if item.margin is not None:
        text += f"; margin {metric.text(item.margin)}, p of a difference as large {p_text(item.adjusted_p_equivalence)}"
    wanted = needed_text(item)
    return f"{text}; to settle a difference of this size: {wanted}." if wanted else f"{text}."


def own_task_verdict(comparison: Comparison) -> str:
    """Return how the supervised arm did on its own task, against the study's pass mark where it has one."""
    own = comparison.own_task
    mark = "the study sets no pass mark" if own.pass_mark is None else f"pass mark {own.pass_mark:g} % top1"
    if own.top1 is None:
        return f"Supervised arm on its own task: not recorded ({mark})."
    if own.pass_mark is not None:
        mark += f": {'MISSED' if own.missed else 'passed'}"
    return f"Supervised arm on its own task: {own.top1:.1f} % top1 on held-out images ({mark})."


def overall_verdict(comparison: Comparison) -> str:
    """Return one sentence on all tasks, by their first metrics, for each arm of the headline."""
    rows = [row for row in comparison.rows if row.primary]
    counts = sorted({(item.n, seeds_text(item)) for row in rows for item in row.headlines})
    seeds = f" ({' or '.join(text for _, text in counts)} per task)" if counts else ""
    parts = [_over_tasks(comparison.claim, other, rows) for other in comparison.others]
    text = f"Overall: {'; '.join(parts)}{seeds}."
    if weak := [quoted(row.task) for row in rows if any(caution(item) for item in row.headlines)]:
        text += f" WARNING: too few seeds or steps on {listed(weak)} to rely on."
    own = comparison.own_task
    if own.missed:
        text += (
            f" The comparison is a straw man: the supervised arm reached {own.top1:.1f} % top1 on its own task, "
            f"below {own.pass_mark:g} %."
        )
    return text


def _over_tasks(claim: str, other: str, rows: Sequence[Row]) -> str:
    found: dict[str, list[str]] = {}
    for row in rows:
        item = next((item for item in row.headlines if item.reference == other), None)
        found.setdefault("no comparison" if item is None else _word(item), []).append(quoted(row.task))
    order = [word for word in ORDER if word in found]
    return f"{title(claim)} transfers better than {title(other)}: " + "; ".join(
        f"{word} on {listed(found[word])}" for word in order
    )


def _word(item: Contrast) -> str:
    if item.floor:
        return NOTHING
    return "equivalent within the margin" if item.verdict == "equivalent" else str(item.verdict)


def verdicts(comparison: Comparison) -> list[str]:
    """Return the lines in their order: each task, the supervised arm's own task where there is one, overall."""
    firsts = [row for row in comparison.rows if row.primary]
    asked = comparison.own_task.top1 is not None or OWN_TASK in comparison.arms
    own = [own_task_verdict(comparison)] if asked else []
    return [*(task_verdict(row) for row in firsts), *own, overall_verdict(comparison)]
