"""Ranks of four arms or more with intervals that hold for all arms at once.

An arm is surely below those that are better by a test, and surely above those that are worse. With the error of all
pairs held together at 5 % (Holm), the ranks that are left hold for all arms at once at 95 % (Al Mohamad, Goeman and
van Zwet, Biometrics 78, 2022).
"""

from collections.abc import Mapping, Sequence

from benchmark.compare.contrast import ALPHA, Contrast, looked
from benchmark.compare.seeds import holm

LEAST_ARMS = 4  # of fewer the verdicts say as much


def rank_intervals(pairs: Mapping[tuple[str, str], Contrast | None], arms: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the best and the worst rank of each arm, 1 being the best.

    `pairs`: (arm, other) -> arm minus other, each pair once; None where they share no seed, which tells nothing. Nor
    does a pair of which no verdict may fall.
    """
    found = {pair: item for pair, item in pairs.items() if item is not None}
    tested = {pair: p for pair, item in found.items() if item.judged and (p := looked(item, "difference")) is not None}
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    better = dict.fromkeys(arms, 0)
    worse = dict.fromkeys(arms, 0)
    for (first, second), p in adjusted.items():
        item = found[first, second]
        if p <= ALPHA:
            winner, loser = (first, second) if item.metric.gain(item.mean) > 0 else (second, first)
            worse[winner] += 1
            better[loser] += 1
    return {arm: (1 + better[arm], len(arms) - worse[arm]) for arm in arms}
