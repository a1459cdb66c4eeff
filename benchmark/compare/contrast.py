"""One arm against another in one metric of one task: size, interval, p, verdict, and what would settle it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmark.compare.cells import Cell, order, own, paired, whole_grid
from benchmark.compare.components import Components, components, crossed_components
from benchmark.compare.interval import ALPHA, Spread, equivalence_p, interval, p_value
from benchmark.compare.looks import Look, look_at, overall
from benchmark.compare.needed import Needed, needed
from benchmark.compare.seeds import Permutation, holm, sign_flips, summarise
from benchmark.study.plan import PretrainSeeds
from metrics.metric import Metric

Verdict = Literal["supported", "contradicted", "equivalent", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class ArmValues:
    """One metric of one arm."""

    by_seed: dict[Cell, float]
    resampled_R: dict[Cell, np.ndarray]
    """seed -> the metric on every resample of the images; empty where the results files do not allow it."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`arm` minus `reference`, seed by seed. The claim that the verdict is about: `arm` is better."""

    task: str
    metric: Metric
    arm: str
    reference: str
    per_seed: dict[Cell, float]
    """By pre-training and transfer seed where they are crossed."""
    mean: float
    sd: float | None
    """Of the differences over seeds; None for one seed."""
    interval: tuple[float, float] | None
    """At 95 %, corrected neither for the number of tasks nor for looks; None for one seed or where nothing varies."""
    components: Components | None
    """None for one seed."""
    p: float | None
    """Two-sided, of the same quantile as the interval."""
    permutation: Permutation | None
    adjusted_p: float | None = None
    """By Holm over the tasks, and for the look; None for a metric that no verdict is about."""
    verdict: Verdict | None = None
    """None for a metric that no verdict is about."""
    needed: Needed | None = None
    """Only where the verdict is inconclusive and there are two seeds or more."""
    needed_equivalence: Needed | None = None
    """To show equivalence, if the difference is as it looks; only where that lies within a declared margin."""
    unpaired: tuple[Cell, ...] = ()
    """Seeds that only one of the arms has, or that would leave gaps in a crossed study; they are left out."""
    margin: float | None = None
    """Below which the study has declared a difference to be none; None where it has declared nothing."""
    p_equivalence: float | None = None
    """Of a difference as large as the margin or larger, by two one-sided tests of the same quantile."""
    adjusted_p_equivalence: float | None = None
    """Corrected as `adjusted_p`."""
    design: PretrainSeeds = "one"
    """Of which seeds the intervals speak."""
    look: Look | None = None
    """None where the study has declared no looks."""
    grouped: int | None = None
    """Images in the groups that were drawn; None where images were drawn one by one, or not at all."""
    floor: bool = False
    """Whether every value of both arms rounds to the least that the metric can be: nothing was learned."""
    steps: int | None = None
    """Of the shortest transfer run; None where nothing was trained."""

    @property
    def n(self) -> int:
        """Seeds that both arms have; pre-trainings, where each was transferred several times."""
        return len({_level(cell) for cell in self.per_seed})

    @property
    def transfers(self) -> int | None:
        """Transfers of each pre-training; None where they are not crossed."""
        crossed = {cell[1] for cell in self.per_seed if not isinstance(cell, int)}
        return len(crossed) or None

    @property
    def images(self) -> int | None:
        """Test images, or groups of them, that were resampled; None where the interval speaks of these images alone."""
        return None if self.components is None else self.components.images

    @property
    def lacks_transfers(self) -> bool:
        """Whether crossed pre-trainings outnumber their transfers: the interval then holds less than it says.

        What a transfer seed does to all of them alike is seen by too few, and with one by none.
        """
        return self.transfers is not None and self.transfers < self.n

    @property
    def lacks_pretrainings(self) -> bool:
        """Whether a crossed study has one pre-training so far: the interval is then over transfers alone."""
        return self.transfers is not None and self.n == 1

    @property
    def judged(self) -> bool:
        """Whether a verdict may fall, by the seeds and values that are there."""
        return not (self.lacks_transfers or self.lacks_pretrainings or self.floor)

    @property
    def within_margin(self) -> bool:
        """Whether the difference is below the margin, at the level of the verdicts."""
        return self.adjusted_p_equivalence is not None and self.adjusted_p_equivalence <= ALPHA


def contrast(
    task: str,
    *,
    metric: Metric,
    arms: tuple[str, str],
    first: ArmValues,
    second: ArmValues,
    images: int | None,
    grouped: int | None = None,
    margin: float | None = None,
    looks: tuple[int, ...] = (),
    design: PretrainSeeds = "one",
    steps: int | None = None,
) -> Contrast | None:
    """Return the first arm minus the second, without a verdict yet; None where they share no seed.

    `images` are the images, or groups of `grouped` images in all, that were resampled. At `looks` the seeds of the last
    look that is reached count alone.
    """
    per_seed, unpaired = paired(first.by_seed, second.by_seed)
    if any(not isinstance(cell, int) for cell in per_seed):
        grid = whole_grid(per_seed)
        unpaired = tuple(sorted({*unpaired} | {*per_seed} - {*grid}, key=order))
        per_seed = {cell: per_seed[cell] for cell in grid}
    look = None
    if looks and per_seed:
        used, look = look_at({_level(cell) for cell in per_seed}, looks)
        per_seed = {cell: value for cell, value in per_seed.items() if _level(cell) in used}
    summary = summarise(list(per_seed.values()))
    if summary is None:
        return None
    parts = None
    if summary.n > 1:
        resampled = all(own(one.resampled_R, cell) is not None for one in (first, second) for cell in per_seed)
        drawn_CR = np.stack([_drawn(first, c) - _drawn(second, c) for c in per_seed]) if resampled else None
        parts = _parts(per_seed, drawn_CR, images)
    scale = max(abs(value) for arm in (first, second) for value in arm.by_seed.values())
    spread = replace(parts.spread, scale=scale) if parts else Spread(factors=((0.0, 1),), of_images=0.0, images=None)
    return Contrast(
        task=task,
        metric=metric,
        arm=arms[0],
        reference=arms[1],
        per_seed=per_seed,
        mean=summary.mean,
        sd=summary.sd,
        interval=interval(summary.mean, spread),
        components=parts,
        p=p_value(summary.mean, spread),
        permutation=sign_flips(_by_level(per_seed)),
        unpaired=unpaired,
        margin=margin,
        p_equivalence=None if margin is None else equivalence_p(summary.mean, margin, spread),
        look=look,
        design=design,
        grouped=None if parts is None or parts.images is None else grouped,
        floor=metric.higher_is_better and scale < metric.minimum + 0.5 * 10**-metric.decimals,
        steps=steps,
    )


def judge(family: Sequence[Contrast]) -> list[Contrast]:
    """Return contrasts of the same two arms on several tasks with adjusted p, verdict and what would settle them."""
    tasks = sum(item.p is not None for item in family)
    return [_with_needed(item, tasks) for item in decide(family)]


def decide(family: Sequence[Contrast]) -> list[Contrast]:
    """Return contrasts of the same two arms on several tasks with adjusted p and verdict."""
    tested = [item for item in family if item.p is not None]
    asked = [(number, item, kind) for number, item in enumerate(tested) for kind in ("difference", "equivalence")]
    found = [(number, kind, p) for number, item, kind in asked if (p := looked(item, kind)) is not None]
    adjusted = holm([p for _, _, p in found], [number for number, _, _ in found])
    by_test = {(number, kind): p for (number, kind, _), p in zip(found, adjusted, strict=True)}
    decided = iter([_decided(item, number, by_test) for number, item in enumerate(tested)])
    return [next(decided) if item.p is not None else replace(item, verdict="inconclusive") for item in family]


def _with_needed(item: Contrast, tasks: int) -> Contrast:
    if item.verdict != "inconclusive" or item.p is None or item.components is None or not item.judged:
        return item
    found = needed(item.mean, item.components, tasks)
    inside = 0.0 if item.margin is None else item.margin - abs(item.mean)
    if inside <= 0:
        return replace(item, needed=found)
    # two one-sided tests: at twice the level
    return replace(item, needed=found, needed_equivalence=needed(inside, item.components, tasks, 2 * ALPHA))


def looked(item: Contrast, kind: str) -> float | None:
    """Return the p of a difference or of equivalence as it counts at this look; None where it is not tested."""
    p = item.p if kind == "difference" else item.p_equivalence
    if p is None or item.look is None:
        return p
    # the looks' levels are two-sided, and equivalence is two one-sided tests
    return overall(p, item.look) if kind == "difference" else max(p, overall(min(2 * p, 1.0), item.look) / 2)


def _decided(item: Contrast, number: int, by_test: dict[tuple[int, str], float]) -> Contrast:
    p, equivalence = by_test[number, "difference"], by_test.get((number, "equivalence"))
    verdict: Verdict = "inconclusive"
    if not item.judged:
        pass
    elif p <= ALPHA:
        verdict = "supported" if item.metric.gain(item.mean) > 0 else "contradicted"
    elif equivalence is not None and equivalence <= ALPHA:
        verdict = "equivalent"
    return replace(item, adjusted_p=p, adjusted_p_equivalence=equivalence, verdict=verdict)


def _level(cell: Cell) -> int:
    """Return what a look counts: the pre-training seed where there is one, else the transfer seed."""
    return cell if isinstance(cell, int) else cell[0]


def _by_level(per_seed: dict[Cell, float]) -> list[float]:
    """Return the mean difference of each seed, or of each pre-training over its transfers."""
    levels = dict.fromkeys(_level(cell) for cell in per_seed)
    if len(levels) < 2:
        return [*per_seed.values()]
    return [float(np.mean([value for cell, value in per_seed.items() if _level(cell) == level])) for level in levels]


def _drawn(arm: ArmValues, cell: Cell) -> np.ndarray:
    found = own(arm.resampled_R, cell)
    assert found is not None
    return arm.resampled_R[found]


def _parts(per_seed: dict[Cell, float], drawn_CR: np.ndarray | None, images: int | None) -> Components:
    """Return the components of two cells or more, crossed where two pre-trainings have two transfers each."""
    rows = len({_level(cell) for cell in per_seed})
    values_C = np.array([*per_seed.values()])
    if rows in (1, len(per_seed)):
        return components(values_C, drawn_CR, images)
    drawn_STR = None if drawn_CR is None else drawn_CR.reshape(rows, -1, drawn_CR.shape[1])
    return crossed_components(values_C.reshape(rows, -1), drawn_STR, images)
