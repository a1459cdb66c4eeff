"""The interval of a mean difference whose variance is a sum of two estimates: one from few seeds, one from many images.

A percentile bootstrap over two to five seeds covers far too seldom, and so does Satterthwaite's t there: its degrees of
freedom are estimated from the same few seeds, and a chance spread near 0 makes it fall back on the normal quantile
(down to 87 % at two seeds). The quantile used here runs from that of the images (Student's t with N - 1 degrees of
freedom, nearly normal) to that of the seeds (S - 1), as Cochran's does (Biometrics 20, 1964), by the share of the
variance that the seeds have; the ends of the ramp are chosen so that the coverage, integrated exactly over the
distribution of the spread, stays between 94.9 and 97 % for every true share and every number of seeds
(docs/statistics.md has the table).
"""

import math

import numpy as np
from scipy import optimize, special

ALPHA = 0.05  # 1 - confidence
ROUNDING = 1e-9  # a standard error below that part of the mean is the rounding of values that do not vary
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


def interval(
    mean: float, of_seeds: float, of_images: float, seeds: int, images: int | None
) -> tuple[float, float] | None:
    """Return the 95 % interval, or None where the seeds are one or nothing varies, so that no spread is known."""
    total = of_seeds + of_images
    if seeds < 2 or total <= (ROUNDING * mean) ** 2:
        return None
    half = float(quantile(ALPHA, of_seeds / total, seeds, images)) * math.sqrt(total)
    return mean - half, mean + half


def p_value(mean: float, of_seeds: float, of_images: float, seeds: int, images: int | None) -> float | None:
    """Return the two-sided p of no difference: 1 - confidence of the interval that just reaches 0."""
    total = of_seeds + of_images
    if seeds < 2 or total <= (ROUNDING * mean) ** 2:
        return None
    distance, share = abs(mean) / math.sqrt(total), of_seeds / total

    def beyond(log_alpha: float) -> float:
        return float(quantile(math.exp(log_alpha), share, seeds, images)) - distance

    if distance == 0:
        return 1.0
    if beyond(math.log(SMALLEST)) <= 0:
        return SMALLEST
    return math.exp(optimize.brentq(beyond, math.log(SMALLEST), 0.0))
