"""What it would take to settle an inconclusive comparison, if the effect is as large as it looks.

Settled means: an effect of the observed size is found with a power of 80 % at the strictest level of Holm's correction.
The components of variance are estimates from few seeds, so the numbers are rough.
"""

import math
from dataclasses import dataclass

from scipy import special

from benchmark.compare.components import Components
from benchmark.compare.interval import ALPHA, quantile

POWER = 0.8
MOST_SEEDS = 1000
MOST_IMAGES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Seeds and images; each None where that alone cannot do it, all of them where nothing within reason can."""

    effect: float
    """The difference that is taken for true."""
    seeds: int | None
    """On the images there are."""
    images: int | None
    """With the seeds there are."""
    both: tuple[int, int] | None
    """Seeds and images, in the proportion there is now; only where neither alone does it."""


def needed(effect: float, parts: Components, tasks: int) -> Needed:
    """Return the least numbers that would settle `effect` among that many tasks."""

    def settles(seeds: int, images: int | None) -> bool:
        of_seeds, of_images = parts.expected(seeds, images)
        total = of_seeds + of_images
        if total == 0:
            return True
        reach = float(quantile(ALPHA / tasks, of_seeds / total, seeds, images)) + float(special.ndtri(POWER))
        return abs(effect) >= reach * math.sqrt(total)

    now = parts.images
    seeds = next((n for n in range(2, MOST_SEEDS + 1) if settles(n, now)), None)
    images, both = None, None
    if now is not None:
        images = next((n for n in _steps(now) if settles(parts.seeds, n)), None)
        if seeds is None and images is None:
            pairs = ((max(math.ceil(parts.seeds * n / now), parts.seeds), n) for n in _steps(now))
            both = next(((s, n) for s, n in pairs if s <= MOST_SEEDS and settles(s, n)), None)
    return Needed(effect=effect, seeds=seeds, images=images, both=both)


def _steps(start: int) -> list[int]:
    """Return numbers of images from `start`, each a tenth above the one before: the estimate is no finer."""
    count = math.ceil(math.log(MOST_IMAGES / start) / math.log(1.1)) if start < MOST_IMAGES else 0
    return [math.ceil(start * 1.1**power) for power in range(count + 1)]
