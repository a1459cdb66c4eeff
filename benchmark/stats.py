"""Mean, spread and paired differences over seeds.

The interval is Student's t on the per-seed differences, so it speaks of the transfer seeds alone; with few seeds it is
wide, as it should be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Values of one arm over its seeds."""

    n: int
    mean: float
    sd: float | None
    """With n - 1 in the denominator; None for one value."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First arm minus second, seed by seed."""

    per_seed: dict[int, float]
    mean: float
    interval: tuple[float, float] | None
    """Student's t at 95 %; None for one seed."""

    @property
    def n(self) -> int:
        """Seeds that both arms have."""
        return len(self.per_seed)


def summarise(values: Sequence[float]) -> Summary | None:
    """Return mean and standard deviation (ddof 1), or None where there is no value."""
    if not values:
        return None
    n = len(values)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(n=n, mean=mean, sd=sd)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Return first minus second over the seeds that both have, or None where they share none."""
    per_seed = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    summary = summarise(list(per_seed.values()))
    if summary is None:
        return None
    interval = None
    if summary.sd is not None:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, summary.n - 1)) * summary.sd / math.sqrt(summary.n)
        interval = (summary.mean - half, summary.mean + half)
    return Difference(per_seed=per_seed, mean=summary.mean, interval=interval)
