"""Looking at a verdict before all seeds are there: alpha is spent over the looks that a study declares.

The two-sided level of 5 % is spent as seeds come, by the function of Lan and DeMets (Biometrika 70, 1983) that
resembles Pocock's test, alpha ln(1 + (e - 1) t) at the share t of the seeds. The one that resembles O'Brien and
Fleming's leaves 0.1 % for three seeds of eight, where Student's quantile is 27: no verdict could fall there. The level
of each look follows from the joint distribution of means of more and more independent seeds (Armitage, McPherson and
Rowe, J. R. Stat. Soc. A 132, 1969); test images that all looks share only make that more alike, so less is spent than
allowed. The levels hold for p as they do for a normal mean (Jennison and Turnbull, Group Sequential Methods, 2000,
section 3.8).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special

NODES = 64  # of the quadrature over a continuation region
LEVELS = 60  # overall levels that a look's own is tabulated at
LEAST, MOST = 1e-12, 0.999


@dataclass(frozen=True, kw_only=True)
class Look:
    """Which of a study's declared looks a comparison is at."""

    looks: tuple[int, ...]
    """Numbers of seeds, rising."""
    number: int
    """From 1; 0 where fewer seeds are there than at the first look."""
    waiting: tuple[int, ...] = ()
    """Seeds that wait for the next look, and take no part."""
    undeclared: tuple[int, ...] = ()
    """Seeds beyond the last look: they were added though none was declared, and take no part."""

    @property
    def last(self) -> bool:
        """Whether no other look follows."""
        return self.number == len(self.looks)


def look_at(seeds: Iterable[int], looks: tuple[int, ...]) -> tuple[set[int], Look]:
    """Return the seeds that a verdict may use now, those of the lowest numbers, and the look; all before the first."""
    ranked = sorted(seeds)
    number = sum(count <= len(ranked) for count in looks)
    if number == 0:
        return {*ranked}, Look(looks=looks, number=0)
    used, rest = ranked[: looks[number - 1]], tuple(ranked[looks[number - 1] :])
    look = Look(looks=looks, number=number)
    return {*used}, Look(
        looks=looks, number=number, waiting=() if look.last else rest, undeclared=rest if look.last else ()
    )


def spent(alpha: float, share: float) -> float:
    """Return how much of `alpha` may be spent until that share of the seeds is there."""
    return alpha * math.log1p((math.e - 1) * share)


def levels(alpha: float, looks: tuple[int, ...]) -> tuple[float, ...]:
    """Return the two-sided level of each look so that all of them together reject a true hypothesis with `alpha`."""
    found = []
    node_K, weight_K = np.polynomial.legendre.leggauss(NODES)
    value_K, density_K = np.zeros(1), np.ones(1)  # of the sum of the seeds so far, where no look has rejected
    before_share, before_spent = 0.0, 0.0
    for count in looks:
        share = count / looks[-1]
        step, budget = math.sqrt(share - before_share), spent(alpha, share) - before_spent

        def over(bound: float, values: np.ndarray = value_K, mass: np.ndarray = density_K, step: float = step,
                 budget: float = budget) -> float:  # fmt: skip
            beyond = special.ndtr((values - bound) / step) + special.ndtr((-values - bound) / step)
            return float(mass @ beyond) - budget

        bound = optimize.brentq(over, 0.0, 40.0 * math.sqrt(share))
        found.append(2 * float(special.ndtr(-bound / math.sqrt(share))))
        next_K = bound * node_K
        away_KK = (next_K[:, None] - value_K) / step
        density_K = bound * weight_K * (np.exp(-(away_KK**2) / 2) @ density_K) / (step * math.sqrt(2 * math.pi))
        value_K, before_share, before_spent = next_K, share, before_spent + budget
    return tuple(found)


def overall(p: float, look: Look) -> float:
    """Return the overall level at which a two-sided `p` at this look would just reject; `p` for a single look."""
    if look.number == 0:
        return 1.0
    if len(look.looks) == 1 or p >= 1:
        return min(p, 1.0)
    alpha_L, level_LK = _table(look.looks)
    level_L = level_LK[:, look.number - 1]
    if p >= math.exp(level_L[-1]):
        return 1.0
    return float(math.exp(np.interp(math.log(max(p, LEAST)), level_L, alpha_L)))


@cache
def _table(looks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of overall levels (L,) and of the level of each look (L, K), all rising with L."""
    alpha_L = np.exp(np.linspace(math.log(LEAST), math.log(MOST), LEVELS))
    return np.log(alpha_L), np.log([levels(float(alpha), looks) for alpha in alpha_L])
