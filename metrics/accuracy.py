"""Top-1 and top-5 accuracy from each image's label and five likeliest classes.

Axis letters: N images, M metrics, R resamples of images.
"""

from dataclasses import dataclass
from typing import Any

from metrics.metric import Metric
from metrics.result_lines import Lines, Resampler, each_of, shares

TOP1, TOP5 = Metric(name="top1"), Metric(name="top5")


@dataclass(frozen=True)
class Predictions:
    """Of an image that was classified."""

    label: int
    top5: tuple[int, ...]
    """The likeliest first."""

    def __post_init__(self) -> None:
        """Raise ValueError without a prediction."""
        if not self.top5:
            raise ValueError("top5 is empty")


def scores(lines: Lines) -> dict[str, float]:
    """Return top1 and top5 in percent. Raises ValueError where there is no image."""
    if not lines:
        raise ValueError("no image to score.")
    first, five = (sum(hits) for hits in zip(*map(_hits, lines), strict=True))
    return {TOP1.name: 100 * first / len(lines), TOP5.name: 100 * five / len(lines)}


def resampler(lines: Lines) -> Resampler:
    """Return the resampler of top1 and top5. Raises LineError with the lines that are of no classification."""
    predictions: list[Predictions] = each_of(Predictions, lines)
    return shares((TOP1.name, TOP5.name), [(x.label == x.top5[0], x.label in x.top5) for x in predictions])


def _hits(line: dict[str, Any]) -> tuple[bool, bool]:
    return line["label"] == line["top5"][0], line["label"] in line["top5"]
