"""What each cell of the printed tables says, as plain text; `export` puts it into a format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.compare.cells import cell_text
from benchmark.compare.comparison import Comparison, Row
from benchmark.compare.contrast import Contrast
from benchmark.compare.interval import SMALLEST
from benchmark.compare.lines import TOKENIZER_NAME
from benchmark.compare.origins import NOT_KNOWN, NOTHING
from benchmark.compare.published import PublishedCheck
from benchmark.compare.records import Store
from benchmark.compare.seeds import Summary
from benchmark.report.contrast_text import images_text, needed_text, variance_text, verdict_text
from benchmark.report.names import listed, title
from engine.records.record import standing
from metrics.metric import PERCENT, Metric

DASH = "-"
CAPTION = (
    "Transfer of one ViT from different weights, {0}: mean \N{PLUS-MINUS SIGN} standard deviation over the "
    "seeds (n), on the validation images."
)
DIFFERENCE_CAPTION = (
    "{0} minus each other arm, paired by seed and by image: mean and standard deviation over seeds, 95 % interval over "
    "seeds and test images, p of no difference, exact p by permutation of the seeds (with the smallest that so many "
    "seeds can give), p after Holm's correction over the tasks and for declared looks, the judged sentence and its "
    "verdict, declared margin, p of a difference as large as that (corrected alike), and the parts of the mean's "
    "variance. No images: the interval speaks of the seeds alone. The verdicts are on the first metric of each task."
)
_FIRST = ("task", "metric", "against", "difference", "95 % interval", "seeds", "images", "p", "p permutation")
HEAD = (
    *_FIRST,
    "p Holm",
    "verdict",
    "margin",
    "p equivalence",
    "variance of the mean",
    "to settle it",
)  # of differences
PUBLISHED_CAPTION = (
    "PUBLISHED values of the recipes that were run, from the sources named, beside the measured ones. They are no part "
    "of the comparison above: other code, other weights, often one seed."
)
FULL_SCALE_TITLE = "Published at full scale, no part of the comparison"
FULL_SCALE_CAPTION = (
    "PUBLISHED by {source}: {setting}. Beside them what was measured here in the small form, in columns of its own: "
    "another model, other images, other lengths. Look at the order of the variants, not at the values."
)
RANK_CAPTION = (
    "Ranks of the arms, 1 being the best, with 95 % intervals that hold for all arms of a task at once: from the tests "
    "of all pairs, with Holm's correction over the pairs, not over the tasks."
)
MOST_LISTED = 6  # seeds listed one by one, missing cells named


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences under the table."""


def result_grid(comparison: Comparison) -> Grid:
    """Return the table of results: one row per task and metric."""
    return Grid(
        caption=CAPTION.format(units([row.metric for row in comparison.rows])),
        head=("task", "metric", *(title(arm) for arm in comparison.arms), "missing cells"),
        rows=tuple(
            (row.task, row.metric.label, *(_cell(row, arm) for arm in comparison.arms), _missing(row))
            for row in _measured(comparison)
        ),
    )


def difference_grid(comparison: Comparison) -> Grid:
    """Return the table of differences: one row per task, metric and reference, or one that says why there is none."""
    return Grid(
        caption=DIFFERENCE_CAPTION.format(title(comparison.claim)),
        head=HEAD,
        rows=tuple(cells for row in _measured(comparison) for cells in _difference_rows(row)),
    )


def lacking_text(row: Row) -> str:
    """Return why nothing is compared in a row."""
    lacking = [title(arm) for arm in (row.claim, *row.others) if not row.values.get(arm)]
    return f"no completed run of {listed(lacking)}" if lacking else "the arms share no seed"


def _measured(comparison: Comparison) -> list[Row]:
    """Return the rows that have a value, and those of a leading metric, whose absence is said."""
    return [row for row in comparison.rows if row.primary or any(row.values.values())]


def published_grid(comparison: Comparison) -> Grid:
    """Return the table of published values, empty where no run follows a published recipe."""
    return Grid(
        caption=PUBLISHED_CAPTION,
        head=(
            "recipe",
            "arm",
            "metric",
            "published",
            "measured",
            "measured - published",
            "tolerance",
            "check",
            "source",
        ),
        rows=tuple(_published_row(check) for check in comparison.published),
    )


def full_scale_grid(comparison: Comparison) -> Grid | None:
    """Return what a paper reports of the same question beside what was measured, None where the study names nothing."""
    table = comparison.store.plan.published
    if table is None:
        return None
    rows = [row for row in comparison.rows if row.primary]
    return Grid(
        caption=FULL_SCALE_CAPTION.format(source=table.source, setting=table.setting),
        head=(
            "variant",
            *(f"PUBLISHED {name}" for name in table.columns),
            "arm here",
            *(f"measured here: {row.task} ({row.metric.label})" for row in rows),
        ),
        rows=tuple(
            (
                item.variant,
                *(f"{item.values[name]:.1f}" if name in item.values else DASH for name in table.columns),
                "not run" if item.arm is None else title(item.arm),
                *(DASH if item.arm is None else _cell(row, item.arm) for row in rows),
            )
            for item in table.rows
        ),
    )


def rank_grid(comparison: Comparison) -> Grid | None:
    """Return the ranks of the arms with their intervals, None where there are fewer than four arms."""
    rows = [row for row in comparison.rows if row.ranks]
    if not rows:
        return None
    arms = [arm for arm in comparison.arms if any(arm in row.ranks for row in rows)]
    return Grid(
        caption=RANK_CAPTION,
        head=("task", "metric", *map(title, arms)),
        rows=tuple(
            (row.task, row.metric.label, *(_rank(row.ranks[arm]) if arm in row.ranks else DASH for arm in arms))
            for row in rows
        ),
    )


def _rank(ranks: tuple[int, int]) -> str:
    best, worst = ranks
    return str(best) if best == worst else f"{best} to {worst}"


def record_lines(comparison: Comparison) -> list[str]:
    """Return what the tables are made from, and every record that they leave out."""
    store = comparison.store
    seeds = ", ".join(str(seed) for seed in comparison.seeds) or "none"
    read = len(store.stored)
    lines = [
        f"Transfer seeds: {seeds}. {read} records read, {len(store.completed)} of them completed; "
        f"{len(store.unreadable)} not readable."
    ]
    pretrained = [f"{title(cost.arm)} {cost.pretrainings}" for cost in comparison.costs if cost.pretrainings]
    if pretrained:
        lines.append(f"Pre-trainings recorded: {', '.join(pretrained)}.")
    compared = [item.record for item in store.completed if item.line is not None]
    for what, values in (
        ("versions of the code", [record.git_commit or "no commit known" for record in compared]),
        ("kinds of device", [record.device for record in compared]),
    ):
        if len(counted := Counter(values)) > 1:
            each = ", ".join(f"{value} ({count})" for value, count in counted.items())
            lines.append(f"The compared runs are of {len(counted)} {what}: {each}.")
    if store.plan.differ:
        lines.append(
            f"The study states that its arms differ in {', '.join(store.plan.differ)}: a difference between them may "
            "be one of architecture, not of pre-training alone."
        )
    lines += _data_line(comparison)
    lines += [
        f"Tokenizer {item.folder.name}: trained on {item.record.samples_seen:,} samples in "
        f"{item.record.cost.total_seconds:,.0f} s before the arms; neither is part of an arm's budget or cost."
        for item in store.completed
        if TOKENIZER_NAME in item.record.outputs
    ]
    lines += [choice.line() for choice in store.choices]
    lines += [
        f"Arm {title(arm)}: its pre-training is not among the records, so its images and budget are not checked."
        for arm in comparison.unknown_origin
    ]
    refused = dict.fromkeys(f"Refused, {row.task}: {problem}." for row in comparison.rows for problem in row.refused)
    lines += refused
    lines += [f"Not a number: {text}." for text in comparison.not_finite]
    lines += [f"Images taken as they are, intervals over seeds alone: {text}." for text in comparison.not_resampled]
    for row in comparison.rows:
        if row.primary and row.missing:
            named = ", ".join(f"{title(arm)} seed {cell_text(seed)}" for arm, seed in row.missing[:MOST_LISTED])
            more = f" and {len(row.missing) - MOST_LISTED} more" if len(row.missing) > MOST_LISTED else ""
            lines.append(f"Missing cells, {row.task} ({row.metric.name}): {len(row.missing)}: {named}{more}.")
    for pair in (pair for row in comparison.rows if row.primary for pair in row.contrasts if pair.unpaired):
        seeds = ", ".join(map(cell_text, pair.unpaired[:MOST_LISTED])) + " ..." * (len(pair.unpaired) > MOST_LISTED)
        why = (
            "seeds of one arm alone"
            if pair.transfers is None
            else "pre-training/transfer seeds of one arm alone, or gaps"
        )
        lines.append(f"Left out of {title(pair.arm)} minus {title(pair.reference)}, {pair.task}: {why} ({seeds}).")
    lines += [
        f"Waiting for the next look, {pair.task}, {title(pair.arm)} minus {title(pair.reference)}: seeds "
        f"{', '.join(map(str, pair.look.waiting))}."
        for row in comparison.rows
        if row.primary
        for pair in row.contrasts
        if pair.look is not None and pair.look.waiting
    ]
    lines += [_flag(check) for check in comparison.published if check.outside]
    lines += [
        f"Not held against what is published for {check.published.recipe}, {check.published.arm}, "
        f"{check.published.metric}: {text}."
        for check in comparison.published
        for text in check.left_out
    ]
    for item in store.incomplete:
        record = item.record
        why = f": {record.error}" if record.error else ""
        status = standing(item.folder, record)
        lines.append(f"Left out, {status} at step {record.steps} of {record.total_steps}: {item.folder}{why}")
    lines += [f"File left out: {text}" for item in store.completed for text in item.damaged.values()]
    lines += [f"Left out, not readable: {text}" for text in store.unreadable]
    lines += [f"Left out, in the study's folder but not one of its runs: {text}" for text in store.unplanned]
    lines += _absent(store)
    return lines


def _data_line(comparison: Comparison) -> list[str]:
    """Return the line for arms with weights that were not, or are not known to be, pre-trained on the same data."""
    data = [cost.pretrained_images for cost in comparison.costs if cost.pretrained_images not in (None, NOTHING)]
    if len(data) < 2 or (len({*data}) == 1 and NOT_KNOWN not in data):
        return []
    how = "not known to be pre-trained on the same" if NOT_KNOWN in data else "pre-trained on different"
    return [
        f"The arms were {how} data (table of costs): a difference between them may be one of data and length, not of "
        "the method alone."
    ]


def units(metrics: Sequence[Metric]) -> str:
    """Return in what unit a table is."""
    plain = all(metric.unit == PERCENT for metric in metrics)
    return "in percent" if plain else "in percent where the metric names no unit"


def _absent(store: Store) -> list[str]:
    """Return a line per task of a study with how many of its runs have left no record."""
    names = Counter(run.task or run.phase for run in store.absent)
    return [f"Not run so far, {name}: {count} planned runs have no record." for name, count in names.items()]


def mean_sd(summary: Summary | None, metric: Metric) -> str:
    """Return mean, standard deviation and number of seeds, a dash where there is no value."""
    if summary is None:
        return DASH
    sd = DASH if summary.sd is None else metric.text(summary.sd)
    return f"{metric.text(summary.mean)} \N{PLUS-MINUS SIGN} {sd} ({summary.n})"


def _cell(row: Row, arm: str) -> str:
    return mean_sd(row.summary(arm), row.metric)


def _missing(row: Row) -> str:
    total = sum(len(cells) for cells in row.values.values()) + len(row.missing)
    return f"{len(row.missing)} of {total}" if total else DASH


def _difference_rows(row: Row) -> list[tuple[str, ...]]:
    if row.refused:
        more = f" (and {len(row.refused) - 1} more)" if len(row.refused) > 1 else ""
        return [(row.task, row.metric.label, DASH, f"refused: {row.refused[0]}{more}", *[DASH] * (len(HEAD) - 4))]
    if not row.contrasts:
        place = HEAD.index("verdict")
        cells = [row.task, row.metric.label, *[DASH] * (len(HEAD) - 2)]
        return [(*cells[:place], f"no verdict, {lacking_text(row)}", *cells[place + 1 :])]
    return [_contrast_row(item) for item in row.contrasts]


def _contrast_row(item: Contrast) -> tuple[str, ...]:
    metric = item.metric
    sd = DASH if item.sd is None else metric.text(item.sd)
    spread = DASH if item.interval is None else " to ".join(map(metric.signed, item.interval))
    exact = item.permutation
    return (
        item.task,
        metric.label,
        title(item.reference),
        f"{metric.signed(item.mean)} \N{PLUS-MINUS SIGN} {sd}",
        spread,
        str(item.n) if item.transfers is None else f"{item.n} x {item.transfers}",
        images_text(item) or DASH,
        p_text(item.p),
        DASH if exact is None else f"{p_text(exact.p)} (least {p_text(exact.smallest)})",
        p_text(item.adjusted_p),
        DASH if item.verdict is None else verdict_text(item),
        DASH if item.margin is None else metric.text(item.margin),
        p_text(item.p_equivalence if item.verdict is None else item.adjusted_p_equivalence),
        variance_text(item) or DASH,
        needed_text(item) or DASH,
    )


def p_text(p: float | None) -> str:
    """Return a p with two significant digits."""
    if p is None:
        return DASH
    return f"<{SMALLEST:.0e}" if p <= SMALLEST else f"{p:.2g}"


def _published_row(check: PublishedCheck) -> tuple[str, ...]:
    row = check.published
    verdict, metric = "outside" if check.outside else "within", Metric(name=row.metric)
    return (
        row.recipe,
        title(row.arm),
        row.metric,
        f"{row.value:.2f}",
        mean_sd(check.measured, metric),
        DASH if check.difference is None else metric.signed(check.difference),
        f"{row.tolerance:.2f}",
        DASH if check.measured is None else verdict,
        f"{row.source}, {row.table}",
    )


def _flag(check: PublishedCheck) -> str:
    row, difference = check.published, Metric(name=check.published.metric).signed(check.difference or 0.0)
    return (
        f"Outside of what is published: {row.recipe}, {row.arm}, {row.metric}: {difference} "
        f"from {row.value:.2f} ({row.source}, {row.table}), tolerance {row.tolerance:.2f}: {row.tolerance_reason}."
    )
