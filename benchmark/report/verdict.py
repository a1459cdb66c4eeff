"""The outcome in plain words, whichever way it falls."""

from benchmark.compare.comparison import OWN_TASK, Comparison, Row
from benchmark.compare.contrast import Contrast, Verdict
from benchmark.report.contrast_text import images_text, needed_text
from benchmark.report.tables import listed, p_text, title

NUMBERS = {1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}
LISTED = 10  # seeds whose differences are named one by one
SAID: dict[Verdict, str] = {
    "supported": "supported: {0} transfers better than {1}",
    "contradicted": "contradicted: {1} transfers better than {0}",
    "equivalent": "equivalent within the margin: {0} and {1} transfer alike",
    "inconclusive": "inconclusive",
}


def task_verdict(row: Row) -> str:
    """Return one sentence on one row: the claim's arm (MAE) against the headline's other (supervised)."""
    head = f"{row.task} ({row.metric.label}): "
    if row.refused:
        return f"{head}no verdict, the runs are not comparable: {'; '.join(row.refused)}."
    if row.headline is None:
        lacking = [arm for arm in (row.claim, row.against) if not row.values.get(arm)]
        why = f"no completed run of {' and '.join(lacking)}" if lacking else "the two arms share no seed"
        return f"{head}no verdict, {why}."
    return head + _sentence(row.headline)


def _sentence(item: Contrast) -> str:
    first, metric = title(item.arm), item.metric
    said = SAID[item.verdict or "inconclusive"].format(first, item.reference)
    if item.verdict in ("supported", "contradicted") and item.within_margin:
        said += ", by less than the margin"
    each = ", ".join(metric.signed(value) for value in item.per_seed.values()) + " by seed; "
    each = each if len(item.per_seed) <= LISTED else ""
    images = f", {images_text(item)} images" if item.images is not None and item.grouped is None else ""
    images = f", {item.grouped:,} images in {item.images} groups" if item.grouped is not None else images
    text = f"{said}; {first} minus {item.reference} {metric.signed(item.mean)} ({each}{seeds_text(item)}{images})"
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
    """Return one sentence on all tasks, by their first metrics."""
    first, second = title(comparison.claim), comparison.against
    by_task = {row.task: _outcome(row) for row in comparison.rows if row.primary}
    phrases: dict[Verdict | None, str] = {
        "supported": f"{first} transfers better than {second} on {{}}",
        "contradicted": f"{second} transfers better than {first} on {{}}",
        "equivalent": f"{first} and {second} are equivalent within the margin on {{}}",
        "inconclusive": "inconclusive on {}",
        None: "no comparison on {}",
    }
    parts = []
    for kind, phrase in phrases.items():
        if tasks := [task for task, found in by_task.items() if found == kind]:
            parts.append(phrase.format(listed(tasks)))
    counts = sorted({(row.headline.n, seeds_text(row.headline)) for row in comparison.rows if row.headline is not None})
    seeds = f" ({' or '.join(text for _, text in counts)} per task)" if counts else ""
    text = f"Overall: {'; '.join(parts)}{seeds}."
    own = comparison.own_task
    if own.missed:
        text += (
            f" The comparison is a straw man: the supervised arm reached {own.top1:.1f} % top1 on its own task, "
            f"below {own.pass_mark:g} %."
        )
    return text


def verdicts(comparison: Comparison) -> list[str]:
    """Return the lines in their order: each task, the supervised arm's own task where there is one, overall."""
    firsts = [row for row in comparison.rows if row.primary]
    asked = comparison.own_task.top1 is not None or OWN_TASK in comparison.arms
    own = [own_task_verdict(comparison)] if asked else []
    return [*(task_verdict(row) for row in firsts), *own, overall_verdict(comparison)]


def _outcome(row: Row) -> Verdict | None:
    return None if row.headline is None else row.headline.verdict


def seeds_text(item: Contrast) -> str:
    """Return over how many seeds a difference is."""
    if item.transfers is not None:
        return f"{item.n} pre-trainings with {item.transfers} transfers each"
    return NUMBERS.get(item.n, f"{item.n} seeds")
