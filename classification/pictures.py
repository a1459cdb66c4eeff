"""A picture of what the classifier said."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from classification.data import LabelledImages
from engine.files import replacing
from engine.images import UnreadableImageError, read_rgb
from engine.task import ImageResult


def draw_predictions(
    path: Path,
    data: LabelledImages,
    results: Sequence[ImageResult],
    classes: Sequence[str],
    *,
    most: int = 24,
) -> Path:
    """Write a grid of evenly spaced validation images: label, answer and its probability; mistakes in red."""
    by_id = {data.image_id(i): i for i in range(len(data))}
    chosen = [results[i * len(results) // most] for i in range(most)] if len(results) > most else list(results)
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * 1.9, rows * 2.2), layout="constrained")
    for axes, result in zip(figure.subplots(rows, columns, squeeze=False).flat, chosen, strict=False):
        try:
            axes.imshow(read_rgb(data.path(by_id[result.image_id])))
        except UnreadableImageError:
            continue
        label, answer = classes[result.values["label"]], classes[result.values["top5"][0]]
        text = f"{label}\n{answer} {result.values['probability']:.0%}"
        axes.set_title(text, fontsize=8, color="black" if label == answer else "crimson")
    for axes in figure.axes:
        axes.axis("off")
    figure.suptitle("first line: label; second line: prediction", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path
