"""Mean and spread over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
