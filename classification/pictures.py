"""A picture of what the classifier said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from classification.data import LabelledImages
from engine.drawing import label_text, write_figure
from engine.images.arrays import RGB, shown_as
from engine.images.reading import UnreadableImageError, read_shown
from engine.records.results_file import ImageResult
from metrics.calibration import reliability


def draw_predictions(
    path: Path,
    data: LabelledImages,
    results: Sequence[ImageResult],
    classes: Sequence[str],
    *,
    most: int = 24,
) -> Path:
    """Write a grid of evenly spaced validation images: label, prediction and its probability; mistakes in red."""
    by_id = {data.image_id(i): i for i in range(len(data))}
    chosen = [results[i * len(results) // most] for i in range(most)] if len(results) > most else list(results)
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * 1.9, rows * 2.2), layout="constrained")
    for axes, result in zip(figure.subplots(rows, columns, squeeze=False).flat, chosen, strict=False):
        try:
            axes.imshow(read_shown(data.path(by_id[result.image_id]), data.view.channels))
        except UnreadableImageError:
            continue
        label, prediction = classes[result.values["label"]], classes[result.values["top5"][0]]
        text = f"{label_text(label, most=30)}\n{label_text(prediction, most=24)} {result.values['probability']:.0%}"
        axes.set_title(text, fontsize=8, color="black" if label == prediction else "crimson")
    for axes in figure.axes:
        axes.axis("off")
    shown = "" if data.view.channels == RGB else f"; {shown_as(data.view.channels)}"
    figure.suptitle(f"first line: label; second line: prediction{shown}", fontsize=9)
    write_figure(figure, path)
    return path


def draw_prediction(
    picture: Path, image: Path, *, classes: Sequence[str], probabilities: Sequence[float], channels: int = RGB
) -> None:
    """Write an image file beside bars of its likeliest classes."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    shown, bars = figure.subplots(1, 2)
    shown.imshow(read_shown(image, channels))
    if channels != RGB:
        shown.set_title(shown_as(channels), fontsize=8)
    shown.axis("off")
    shares = bars.barh(range(len(classes)), probabilities, color="steelblue")
    texts = [f"{label_text(name)} {share:.0%}" for name, share in zip(classes, probabilities, strict=True)]
    bars.bar_label(shares, texts, padding=3)
    bars.invert_yaxis()
    bars.set_xlim(0, 1.6)
    bars.axis("off")
    write_figure(figure, picture)


def draw_reliability(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """Write, for bins of the predicted class's probability, the share that is right, and how many images there are."""
    found = reliability(lines)
    bins = len(found.count_B)
    centre_B = (np.arange(bins) + 0.5) / bins
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    rates, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    rates.bar(centre_B, np.nan_to_num(found.right_B), width=0.9 / bins, color="steelblue", label="share that is right")
    rates.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="as probable as right")
    rates.scatter(
        found.probability_B, found.right_B, s=14, color="crimson", zorder=3, label="at the bin's mean probability"
    )
    rates.set_ylim(0, 1)
    rates.set_ylabel("right")
    rates.set_title(f"expected calibration error {found.ece:.1f} %", fontsize=10)
    rates.legend(fontsize=8, loc="upper left")
    counts.bar(centre_B, found.count_B, width=0.9 / bins, color="grey")
    counts.set_ylabel("images")
    counts.set_xlabel("probability of the predicted class")
    counts.set_xlim(0, 1)
    write_figure(figure, path)
    return path
