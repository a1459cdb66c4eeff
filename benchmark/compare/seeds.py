"""What the seeds alone say: mean and spread, an exact p by permutation, and Holm's correction over tasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_SEEDS = 16  # 65,536 sign patterns; with more seeds the test is not needed
TOLERANCE = 1e-9  # relative: equal sums in another order differ by rounding


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Values of one arm over its seeds."""

    n: int
    mean: float
    sd: float | None
    """With n - 1 in the denominator; None for one value."""


def summarise(values: Sequence[float]) -> Summary | None:
    """Return mean and standard deviation (ddof 1), or None where there is no value."""
    if not values:
        return None
    n = len(values)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(n=n, mean=mean, sd=sd)


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """Two-sided sign-flip test of paired differences. It speaks of the seeds alone, on these images."""

    p: float
    smallest: float
    """The least p that this number of seeds can give: 2 / 2^S; with five seeds or fewer it is above 0.05."""


def sign_flips(differences: Sequence[float]) -> Permutation | None:
    """Return the share of the 2^S sign patterns whose mean is as far from 0; None for one seed or above MOST_SEEDS."""
    seeds = len(differences)
    if not 2 <= seeds <= MOST_SEEDS:
        return None
    values_S = np.asarray(differences, dtype=np.float64)
    signs_PS = 1 - 2 * ((np.arange(2**seeds)[:, None] >> np.arange(seeds)) & 1)
    sums_P = np.abs(signs_PS @ values_S)
    limit = abs(values_S.sum()) - TOLERANCE * np.abs(values_S).sum()
    return Permutation(p=float(np.mean(sums_P >= limit)), smallest=2.0 / 2**seeds)


def holm(p_values: Sequence[float], tasks: Sequence[int] | None = None) -> list[float]:
    """Return the adjusted p of each hypothesis (Holm 1979): step-down, never above 1, in the order given.

    `tasks` says which hypotheses exclude each other: of those of one task one at most is true (a difference of 0, and
    one beyond the margin), so a step counts tasks that still have a hypothesis (Shaffer, JASA 81, 1986). Each
    hypothesis is a task of its own unless given.
    """
    tasks = range(len(p_values)) if tasks is None else tasks
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, index in enumerate(ranked):
        true = len({tasks[i] for i in ranked[rank:]})
        largest = max(largest, min(true * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted
