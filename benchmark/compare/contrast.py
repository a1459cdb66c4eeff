"""One arm against another in one metric of one task: size, interval, p, verdict, and what would settle it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmark.compare.components import Components, components
from benchmark.compare.interval import ALPHA, interval, p_value
from benchmark.compare.needed import Needed, needed
from benchmark.compare.seeds import Permutation, holm, sign_flips, summarise
from metrics.metric import Metric

Verdict = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class ArmValues:
    """One metric of one arm."""

    by_seed: dict[int, float]
    resampled_R: dict[int, np.ndarray]
    """seed -> the metric on every resample of the images; empty where the results files do not allow it."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`arm` minus `reference`, seed by seed. The claim that the verdict is about: `arm` is better."""

    task: str
    metric: Metric
    arm: str
    reference: str
    per_seed: dict[int, float]
    mean: float
    sd: float | None
    """Of the differences over seeds; None for one seed."""
    interval: tuple[float, float] | None
    """At 95 %, not corrected for the number of tasks; None for one seed or where nothing varies."""
    components: Components | None
    """None for one seed."""
    p: float | None
    """Two-sided, of the same quantile as the interval."""
    permutation: Permutation | None
    adjusted_p: float | None = None
    """By Holm over the tasks; None for a metric that no verdict is about."""
    verdict: Verdict | None = None
    """None for a metric that no verdict is about."""
    needed: Needed | None = None
    """Only where the verdict is inconclusive and there are two seeds or more."""
    unpaired: tuple[int, ...] = ()
    """Seeds that only one of the arms has; they are left out."""

    @property
    def n(self) -> int:
        """Seeds that both arms have."""
        return len(self.per_seed)

    @property
    def images(self) -> int | None:
        """Test images that were resampled; None where the interval speaks of these images alone."""
        return None if self.components is None else self.components.images


def contrast(
    task: str, *, metric: Metric, arms: tuple[str, str], first: ArmValues, second: ArmValues, images: int | None
) -> Contrast | None:
    """Return the first arm minus the second, without a verdict yet; None where they share no seed."""
    shared = sorted(first.by_seed.keys() & second.by_seed.keys())
    per_seed = {seed: first.by_seed[seed] - second.by_seed[seed] for seed in shared}
    summary = summarise(list(per_seed.values()))
    if summary is None:
        return None
    parts = None
    if summary.n > 1:
        resampled = all(seed in first.resampled_R and seed in second.resampled_R for seed in shared)
        drawn_SR = np.stack([first.resampled_R[s] - second.resampled_R[s] for s in shared]) if resampled else None
        parts = components(np.array(list(per_seed.values())), drawn_SR, images)
    spread = (parts.of_seeds, parts.of_images, summary.n, parts.images) if parts else (0.0, 0.0, summary.n, None)
    return Contrast(
        task=task,
        metric=metric,
        arm=arms[0],
        reference=arms[1],
        per_seed=per_seed,
        mean=summary.mean,
        sd=summary.sd,
        interval=interval(summary.mean, *spread),
        components=parts,
        p=p_value(summary.mean, *spread),
        permutation=sign_flips(list(per_seed.values())),
        unpaired=tuple(sorted(first.by_seed.keys() ^ second.by_seed.keys())),
    )


def judge(family: Sequence[Contrast]) -> list[Contrast]:
    """Return contrasts of the same two arms on several tasks with adjusted p, verdict and what would settle them."""
    tested = [item for item in family if item.p is not None]
    adjusted = iter(holm([item.p for item in tested if item.p is not None]))
    judged = []
    for item in family:
        p = next(adjusted) if item.p is not None else None
        if p is None or p > ALPHA:
            wanted = needed(item.mean, item.components, len(tested)) if item.components and p is not None else None
            judged.append(replace(item, adjusted_p=p, verdict="inconclusive", needed=wanted))
        else:
            verdict: Verdict = "supported" if item.metric.gain(item.mean) > 0 else "contradicted"
            judged.append(replace(item, adjusted_p=p, verdict=verdict))
    return judged
