"""Whether a classifier's probabilities are its rates of being right: expected calibration error, and its bins.

Axis letters: N images, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.metric import error

BINS = 15  # Guo et al. 2017, section 4.1
ECE = error("ece", unit="%")


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Images binned by the probability of the predicted class: bins of equal width, each with its upper end."""

    count_B: np.ndarray
    """Images of each bin."""
    right_B: np.ndarray
    """Share of them that are right; NaN of an empty bin."""
    probability_B: np.ndarray
    """Their mean probability; NaN of an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error in percent: the mean of |right - probability|, weighted by images.

        Guo et al. 2017 (arXiv 1706.04599), equation 3.
        """
        there = self.count_B > 0
        gap = np.abs(self.right_B[there] - self.probability_B[there])
        return float(100 * (self.count_B[there] * gap).sum() / self.count_B.sum())


def reliability(lines: Sequence[dict[str, Any]], *, bins: int = BINS) -> Reliability:
    """Return the bins of lines with `label`, `top5` and `probability`, that of the first of `top5`, from 0 to 1.

    Raises ValueError where there is no line.
    """
    if not lines:
        raise ValueError("no image to score.")
    probability_N = np.array([line["probability"] for line in lines], dtype=np.float64)
    right_N = np.array([line["label"] == line["top5"][0] for line in lines], dtype=np.float64)
    bin_N = np.clip(np.ceil(probability_N * bins).astype(int) - 1, 0, bins - 1)  # (0, 1/15], (1/15, 2/15], ...
    count_B, right_B, sum_B = (
        np.bincount(bin_N, weights=weight_N, minlength=bins) for weight_N in (None, right_N, probability_N)
    )
    with np.errstate(invalid="ignore"):
        return Reliability(count_B=count_B, right_B=right_B / count_B, probability_B=sum_B / count_B)
