"""What it would take to settle an inconclusive comparison, if the effect is as large as it looks.

Settled means: an effect of the observed size is found with a power of 80 % at the strictest level of Holm's correction.
The components of variance are estimates from few seeds, so the numbers are rough.
"""

import math
from dataclasses import dataclass

from scipy import special

from benchmark.compare.components import Components
from benchmark.compare.interval import ALPHA

POWER = 0.8
MOST_SEEDS = 1000
MOST_IMAGES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Seeds, transfers and images; each None where that alone cannot do it, all of them where nothing in reason can."""

    effect: float
    """The difference that is taken for true."""
    seeds: int | None
    """On the images there are; pre-trainings, with the transfers there are, where both are crossed."""
    images: int | None
    """With the seeds there are."""
    both: tuple[int, int] | None
    """Seeds and images, in the proportion there is now; only where nothing alone does it."""
    transfers: int | None = None
    """Of each pre-training there is; None too where they are not crossed."""


def needed(effect: float, parts: Components, tasks: int, alpha: float = ALPHA) -> Needed:
    """Return the least numbers that would settle `effect` among that many tasks, at the two-sided level `alpha`."""
    each = None if parts.transfers is None else parts.transfers.count

    def settles(seeds: int, images: int | None, transfers: int | None = each) -> bool:
        spread = parts.expected(seeds, images, transfers)
        if spread.total == 0:
            return True
        reach = spread.reach(alpha / tasks) + float(special.ndtri(POWER))
        return abs(effect) >= reach * math.sqrt(spread.total)

    now = parts.images
    counts = range(2, MOST_SEEDS + 1)
    seeds = next((n for n in counts if settles(n, now)), None)
    transfers = None if each is None else next((n for n in counts if settles(parts.seeds, now, n)), None)
    images, both = None, None
    if now is not None:
        images = next((n for n in _steps(now) if settles(parts.seeds, n)), None)
        if seeds is None and images is None and transfers is None:
            pairs = ((max(math.ceil(parts.seeds * n / now), parts.seeds), n) for n in _steps(now))
            both = next(((s, n) for s, n in pairs if s <= MOST_SEEDS and settles(s, n)), None)
    return Needed(effect=effect, seeds=seeds, images=images, both=both, transfers=transfers)


def _steps(start: int) -> list[int]:
    """Return numbers of images from `start`, each a tenth above the one before: the estimate is no finer."""
    count = math.ceil(math.log(MOST_IMAGES / start) / math.log(1.1)) if start < MOST_IMAGES else 0
    return [math.ceil(start * 1.1**power) for power in range(count + 1)]
