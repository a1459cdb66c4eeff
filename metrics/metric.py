"""What a metric is: its name, its unit, and which way is better. Search, verdicts, tables and pictures follow it."""

import math
from dataclasses import dataclass

PERCENT = "%"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that runs are compared by."""

    name: str
    """As in records."""
    unit: str = PERCENT
    """Empty for a number without a unit, as a loss."""
    higher_is_better: bool = True
    minimum: float = 0.0
    """No run can have less."""
    maximum: float = 100.0
    """No run can have more."""
    decimals: int = 2
    """In tables."""
    undefined: float | None = None
    """The value that stands for `nothing to score` (-1 of COCO's AP); a table shows it as missing."""

    @property
    def direction(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1

    @property
    def label(self) -> str:
        """The name as tables and axes show it, with what is not usual: `miou`, `rmse (m, lower is better)`."""
        unusual = [self.unit] if self.unit not in ("", PERCENT) else []
        unusual += [] if self.higher_is_better else ["lower is better"]
        return f"{self.name} ({', '.join(unusual)})" if unusual else self.name

    def text(self, value: float) -> str:
        """Return a value as a table shows it."""
        return f"{value:.{self.decimals}f}"

    def signed(self, difference: float) -> str:
        """Return a difference with its sign; what rounds to zero is +0.00."""
        return f"{round(difference, self.decimals) + 0.0:+.{self.decimals}f}"

    def gain(self, difference: float) -> float:
        """Return a difference, first minus second, so that above zero means that the first is better."""
        return self.direction * difference

    def is_missing(self, value: float | None) -> bool:
        """Return whether a run has no such number: none is recorded, it is not finite, or nothing could be scored."""
        return value is None or not math.isfinite(value) or value == self.undefined

    def fault(self, value: float) -> str | None:
        """Return what is wrong with a value that no run can have written; None where it can be.

        NaN and infinity can be written: a run may diverge. A percentage may be off by rounding.
        """
        rounding = 1e-6 if self.unit == PERCENT else 0.0
        if value == self.undefined or not math.isfinite(value):
            return None
        if self.minimum - rounding <= value <= self.maximum + rounding:
            return None
        what = "no percentage" if self.unit == PERCENT else f"outside {self.minimum:g} to {self.maximum:g}"
        return f"{value!r} is {what}"


def error(name: str, *, unit: str = "") -> Metric:
    """Return a metric that is better the lower it is, from 0 up: a loss, an error."""
    return Metric(name=name, unit=unit, higher_is_better=False, maximum=math.inf, decimals=4)
