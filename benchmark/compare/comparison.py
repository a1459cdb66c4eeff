"""The comparison as typed values: a row per task and metric, the cost of each arm, and what cannot be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

from benchmark.compare import RESAMPLES
from benchmark.compare.cells import Cell, order, transfer_of
from benchmark.compare.contrast import ArmValues, Contrast, contrast, judge
from benchmark.compare.cost import ArmCost, arm_cost
from benchmark.compare.fairness import (
    origin_problems,
    pretraining_problems,
    repeat_problems,
    tied_problems,
    transfer_problems,
)
from benchmark.compare.lines import Line, usual_lines
from benchmark.compare.origins import RANDOM
from benchmark.compare.published import PublishedCheck, check_published
from benchmark.compare.ranks import LEAST_ARMS, rank_intervals
from benchmark.compare.records import Store, Stored
from benchmark.compare.resample import Resampled, resample
from benchmark.compare.seeds import Summary, summarise
from benchmark.study.plan import Plan
from engine.spec import at_recipes_depth, with_later_fields
from metrics.metric import Metric

ARMS = ("random", "supervised", "mae")
OWN_TASK = "supervised"  # the pre-training that has a task of its own


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one task."""

    line: Line
    metric: Metric
    values: dict[str, dict[Cell, float]]
    """arm -> seed (or pre-training and transfer seed) -> value; an arm without a value is there with none."""
    contrasts: tuple[Contrast, ...]
    """The arm of the claim minus every other that shares a seed with it; none where the comparison is refused."""
    refused: tuple[str, ...]
    """Why the arms may not be compared."""
    claim: str
    """The arm whose advantage the verdict is about."""
    others: tuple[str, ...]
    """The other arms of the headline: the study's one, or all that are there."""
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """arm -> best and worst rank; of the primary metric, where four arms or more have values."""

    @property
    def task(self) -> str:
        """What the line is called."""
        return self.line.label

    def summary(self, arm: str) -> Summary | None:
        """Return mean and std of an arm over its seeds."""
        return summarise(list(self.values.get(arm, {}).values()))

    @property
    def primary(self) -> bool:
        """Whether the task's verdict is about this metric."""
        return self.line.scores.primary == self.metric

    @property
    def headline(self) -> Contrast | None:
        """The first of `headlines`; None where there is none."""
        return next(iter(self.headlines), None)

    @property
    def headlines(self) -> tuple[Contrast, ...]:
        """The claim's arm minus those of the headline; none where they share no seed, or where it is refused."""
        return tuple(item for item in self.contrasts if item.reference in self.others)

    @property
    def missing(self) -> tuple[tuple[str, Cell], ...]:
        """(arm, seed) of the cells without a value, among the arms and seeds that the task was run with.

        Of arms whose pre-trainings and transfers are crossed, and of the others, by themselves.
        """
        crossed = {arm: any(not isinstance(cell, int) for cell in cells) for arm, cells in self.values.items()}
        missing: list[tuple[str, Cell]] = []
        for arm, cells in self.values.items():
            alike = {cell for other, found in self.values.items() if crossed[other] == crossed[arm] for cell in found}
            if cells:
                missing += [(arm, cell) for cell in sorted(alike - cells.keys(), key=order)]
        return tuple(missing)


@dataclass(frozen=True, kw_only=True)
class OwnTask:
    """How well the supervised arm of the headline learned its own task."""

    top1: float | None
    """Percent on held-out images, the lowest of its records; None where none is recorded."""
    pass_mark: float | None
    """What the study asks of it."""

    @property
    def missed(self) -> bool:
        """Whether it is a straw man."""
        return self.top1 is not None and self.pass_mark is not None and self.top1 < self.pass_mark


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that the tables show."""

    store: Store
    arms: tuple[str, ...]
    claim: str
    """The arm whose advantage the verdicts are about."""
    others: tuple[str, ...]
    """The arms that it is judged against in the headline: the study's one, or all that are there."""
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    costs: tuple[ArmCost, ...]
    own_task: OwnTask
    unknown_origin: tuple[str, ...]
    """Arms with transfer runs whose pre-training is not among the records."""
    not_finite: tuple[str, ...]
    """Metrics that were recorded as no number, and so are missing in the rows."""
    not_resampled: tuple[str, ...]
    """Why images were taken as they are, so that an interval speaks of the seeds alone."""
    alike: tuple[tuple[str, float], ...]
    """(task, correlation of the scores of neighbours) where test images look like frames and no groups are named."""
    published: tuple[PublishedCheck, ...]
    """Published values of the recipes that were run, beside what was measured."""

    @property
    def against(self) -> str:
        """The first other arm of the headline."""
        return self.others[0]

    def leading(self, task: str) -> Row:
        """Return the row of a task's first metric: what it is judged by."""
        return next(row for row in self.rows if row.primary and row.task == task)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all transfer runs."""
        cells = {cell for row in self.rows for found in row.values.values() for cell in found}
        return tuple(sorted({transfer_of(cell) for cell in cells}))


def compare(store: Store, *, resamples: int = RESAMPLES) -> Comparison:
    """Return the comparison of the completed runs in a store.

    The test images are resampled that many times; with 0 the intervals speak of the seeds alone, and no results file is
    read.
    """
    pretrainings = [item for item in store.completed if item.pretrained]
    transfers = [item for item in store.completed if item.line is not None]
    plan, later = store.plan, partial(with_later_fields, store.tasks)
    at_depth = partial(at_recipes_depth, store.tasks)
    arms = _arms(store, [*transfers, *pretrainings])
    claim, others = _headline(plan, arms, transfers)
    lines = _lines(store, transfers)
    shared = [
        *pretraining_problems(pretrainings, plan),
        *repeat_problems(pretrainings, plan),
    ]
    rows: list[Row] = []
    not_finite: list[str] = []
    not_resampled: list[str] = []
    alike: list[tuple[str, float]] = []
    for line in lines:
        task = line.label
        mine = sorted((item for item in transfers if item.line == line), key=lambda item: item.record.seed)
        refused = (
            (
                *transfer_problems(mine, plan.differ, later, at_depth),
                *shared,
                *origin_problems(mine, pretrainings),
                *tied_problems(mine, plan),
            )
            if mine
            else ()
        )
        drawn = resample(line, mine, 0 if refused else resamples)
        alike += [] if drawn.video is None else [(task, drawn.video)]
        for metric in line.scores.metrics:
            rows.append(_row(line, metric, mine, arms, (claim, others), plan, refused, drawn))
            not_finite += [f"{item.folder}: {metric.name}" for item in mine if _infinite(item, metric)]
        if any(row.contrasts for row in rows if row.task == task):
            not_resampled += drawn.problems
            alone = [
                row.metric.name for row in rows if row.task == task and any(c.images is None for c in row.contrasts)
            ]
            if drawn.images is not None and alone:
                not_resampled.append(f"{task}: {', '.join(alone)}")
    own = [item.record.metrics["top1"] for item in pretrainings if item.arm in others and _has_own_task(item)]
    known = {item.arm for item in pretrainings}
    return Comparison(
        store=store,
        arms=arms,
        claim=claim,
        others=others,
        lines=lines,
        rows=_judged(rows),
        costs=tuple(arm_cost(arm, lines, pretrainings, transfers) for arm in arms),
        own_task=OwnTask(top1=min(own) if own else None, pass_mark=plan.pass_mark),
        unknown_origin=tuple(sorted({i.arm for i in transfers} - known - {RANDOM})),
        not_finite=tuple(not_finite),
        not_resampled=tuple(not_resampled),
        alike=tuple(alike),
        published=check_published([*transfers, *pretrainings]),
    )


def _arms(store: Store, stored: Sequence[Stored]) -> tuple[str, ...]:
    """Return the arms in their order: a study's own, then all others that were found, the usual three first.

    The usual three where nothing was found.
    """
    planned = tuple(dict.fromkeys(arm for plan in store.plans for arm in plan.arms))
    found = {item.arm for item in stored}
    if not planned and not found:
        return ARMS
    usual = tuple(arm for arm in ARMS if arm in found and arm not in planned)
    return (*planned, *usual, *sorted(found - {*planned, *usual}))


def _headline(plan: Plan, arms: Sequence[str], transfers: Sequence[Stored]) -> tuple[str, tuple[str, ...]]:
    """Return the arm whose advantage is judged, and the arms that it is judged against.

    A study's own. Of records without one, the usual two where both were transferred, else what is there: an arm with
    weights against all others.
    """
    if {plan.claim, plan.against} <= {*plan.arms}:
        return plan.claim, (plan.against,)
    ran = {item.arm for item in transfers}
    there = [arm for arm in arms if arm in ran]
    if len(there) < 2:
        return plan.claim, (plan.against,)
    # random weights are judged against, never judged; and the usual other arm only where it is the only one left
    ranked = sorted(there, key=lambda arm: (arm != plan.claim, arm == RANDOM, arm == plan.against, there.index(arm)))
    claim = ranked[0]
    return claim, (plan.against,) if plan.against in there and claim != plan.against else tuple(
        arm for arm in there if arm != claim
    )


def _lines(store: Store, transfers: Sequence[Stored]) -> tuple[Line, ...]:
    """Return the lines that were found in their order: a study's own, or the usual three first; then all others.

    The usual three where nothing was found.
    """
    planned = [run.task for plan in store.plans for run in plan.runs if run.phase == "transfer"]
    found = {item.line for item in transfers if item.line is not None}
    if not planned:
        usual = usual_lines(store.tasks)
        first = tuple(line for line in usual if line in found) if found else usual
        return (*first, *sorted(found - set(usual), key=lambda line: line.label))
    order = [*dict.fromkeys(planned)]
    # what lies beside the study is no part of it, but of the comparison: it comes last
    return tuple(
        sorted(
            found,
            key=lambda line: (
                order.index(line.task) if line.task in order else len(order),
                -line.label_fraction,
                line.label,
            ),
        )
    )


def _row(
    line: Line,
    metric: Metric,
    stored: Sequence[Stored],
    arms: Sequence[str],
    headline: tuple[str, tuple[str, ...]],
    plan: Plan,
    refused: tuple[str, ...],
    drawn: Resampled,
) -> Row:
    claim, others = headline
    found = {arm: ArmValues(by_seed={}, resampled_R={}) for arm in (*arms, claim)}
    for item in stored:
        value, arm, seed = item.record.metrics.get(metric.name), item.arm, _cell(item, plan)
        if value is not None and not metric.is_missing(value):
            found[arm].by_seed[seed] = value
            if metric.name in (resampled := drawn.values_R.get(item.folder, {})):
                found[arm].resampled_R[seed] = resampled[metric.name]
    difference = partial(
        contrast,
        line.label,
        metric=metric,
        images=drawn.images,
        grouped=drawn.grouped,
        margin=plan.margin(line.task, line.label, metric.name),
        looks=plan.looks,
        design=plan.pretrain_seeds,
        steps=min((item.record.steps for item in stored), default=0) or None,
    )
    contrasts = [
        difference(arms=(claim, arm), first=found[claim], second=found[arm])
        for arm in arms
        if arm != claim and not refused
    ]
    there = [arm for arm in arms if found[arm].by_seed]
    ranks = {}
    if len(there) >= LEAST_ARMS and metric == line.scores.primary and not refused:
        pairs = combinations(there, 2)
        ranks = rank_intervals(
            {(one, two): difference(arms=(one, two), first=found[one], second=found[two]) for one, two in pairs}, there
        )
    return Row(
        line=line,
        metric=metric,
        claim=claim,
        others=others,
        values={arm: found[arm].by_seed for arm in arms},
        contrasts=tuple(item for item in contrasts if item is not None),
        refused=refused,
        ranks=ranks,
    )


def _cell(item: Stored, plan: Plan) -> Cell:
    """Return where a run's value stands."""
    seed = item.record.seed
    return seed if plan.pretrain_seeds != "crossed" or item.pretrain_seed is None else (item.pretrain_seed, seed)


def _judged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with verdicts: a family of hypotheses is one reference on the primary metrics of all tasks."""
    judged: dict[tuple[str, str], Contrast] = {}
    for reference in dict.fromkeys(item.reference for row in rows for item in row.contrasts):
        family = [item for row in rows if row.primary for item in row.contrasts if item.reference == reference]
        judged |= {(item.task, reference): item for item in judge(family)}
    return tuple(
        replace(row, contrasts=tuple(judged[row.task, item.reference] for item in row.contrasts))
        if row.primary
        else row
        for row in rows
    )


def _infinite(item: Stored, metric: Metric) -> bool:
    return not math.isfinite(item.record.metrics.get(metric.name, 0.0))


def _has_own_task(item: Stored) -> bool:
    return item.record.task == OWN_TASK and "top1" in item.record.metrics
