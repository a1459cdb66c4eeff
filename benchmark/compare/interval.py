"""The interval of a mean difference whose variance is a sum of two estimates: one from few seeds, one from many images.

A percentile bootstrap over two to five seeds covers far too seldom, and so does Satterthwaite's t there: its degrees of
freedom are estimated from the same few seeds, and a chance spread near 0 makes it fall back on the normal quantile
(down to 87 % at two seeds). The quantile used here runs from that of the images (Student's t with N - 1 degrees of
freedom, nearly normal) to that of the seeds (S - 1), as Cochran's does (Biometrics 20, 1964), by the share of the
variance that the seeds have; the ends of the ramp are chosen so that the coverage, integrated exactly over the
distribution of the spread, stays between 94.9 and 97 % for every true share and every number of seeds
(docs/statistics.md has the table).

Where pre-trainings and transfers are crossed, two parts come from few seeds. Each asks for a quantile by its own share,
and both together ask for one of as many seeds as the larger factor has; the largest of the three is taken. Without the
third, the coverage of 5 x 5 seeds falls to 94.0 % where either part is a good share of the variance.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

ALPHA = 0.05  # 1 - confidence
ROUNDING = 1e-9  # a standard error below that part of the values is the rounding of values that do not vary
SMALLEST = 1e-12  # a p-value below it is given as it
TOP = 0.9  # share of the seeds' variance from which on the quantile is Student's, at three or more seeds
TOP_TWO = 10.0  # the same at two seeds, in units of alpha


def quantile(alpha: float, share: np.ndarray | float, seeds: int, images: int | None) -> np.ndarray:
    """Return how many standard errors a two-sided interval reaches that misses with probability `alpha`.

    `share` is the part of the estimated variance that comes from the seeds; no number of images means very many. The
    value lies between the quantiles of the images (at a share of alpha or below) and of the seeds, and falls as alpha
    grows.
    """
    of_seeds = special.stdtrit(seeds - 1, 1 - alpha / 2)
    of_images = special.ndtri(1 - alpha / 2) if images is None else special.stdtrit(images - 1, 1 - alpha / 2)
    if of_images > of_seeds:  # fewer images than seeds
        return np.full_like(share, of_images, dtype=np.float64)
    # two seeds: a spread near 0 is likely, so even a small share has to be taken for a large one
    top = min(TOP_TWO * alpha, TOP) if seeds == 2 else TOP
    low = min(alpha, TOP / 2)
    return np.asarray(of_images + (of_seeds - of_images) * np.clip((share - low) / (top - low), 0, 1))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The estimated variance of a mean difference, by what it comes from."""

    factors: tuple[tuple[float, int], ...]
    """(variance, levels) of seeds; of pre-training and of transfer where they are crossed."""
    of_images: float
    images: int | None
    """Test images, or groups of them, that were drawn; None for very many, or where they are taken as they are."""
    scale: float = 0.0
    """Size of the values whose difference it is: their rounding is no spread."""

    @property
    def total(self) -> float:
        """The variance of the mean difference."""
        return sum(variance for variance, _ in self.factors) + self.of_images

    def known(self, mean: float) -> bool:
        """Return whether there is an interval: two levels or more of every factor, and more than rounding varies."""
        return (
            all(levels > 1 for _, levels in self.factors) and self.total > (ROUNDING * max(abs(mean), self.scale)) ** 2
        )

    def reach(self, alpha: float) -> float:
        """Return the largest quantile that a factor asks for, or all together, in standard errors."""
        of_all = sum(part for part, _ in self.factors), max(levels for _, levels in self.factors)
        asked = {*self.factors, of_all}
        return max(float(quantile(alpha, part / self.total, levels, self.images)) for part, levels in asked)


def interval(mean: float, spread: Spread, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Return the interval that misses with probability `alpha`.

    None where the seeds are one or nothing varies, so that no spread is known.
    """
    if not spread.known(mean):
        return None
    half = spread.reach(alpha) * math.sqrt(spread.total)
    return mean - half, mean + half


def p_value(mean: float, spread: Spread) -> float | None:
    """Return the two-sided p of no difference: 1 - confidence of the interval that just reaches 0."""
    return _two_sided(abs(mean), spread) if spread.known(mean) else None


def equivalence_p(mean: float, margin: float, spread: Spread) -> float | None:
    """Return the p of a difference of `margin` or more, either way: two one-sided tests (Schuirmann 1987).

    It is the larger of the two, each half of a two-sided one; so it is at most 0.05 where the 90 % interval lies within
    the margin.
    """
    if not spread.known(mean):
        return None
    inside = margin - abs(mean)
    half = _two_sided(abs(inside), spread) / 2
    return half if inside >= 0 else 1 - half


def _two_sided(distance: float, spread: Spread) -> float:
    errors = distance / math.sqrt(spread.total)

    def beyond(log_alpha: float) -> float:
        return spread.reach(math.exp(log_alpha)) - errors

    if errors == 0:
        return 1.0
    if beyond(math.log(SMALLEST)) <= 0:
        return SMALLEST
    return math.exp(optimize.brentq(beyond, math.log(SMALLEST), 0.0))
