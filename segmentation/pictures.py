"""Pictures of predictions: image, label map and prediction side by side, with a legend."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from engine.files import replacing
from engine.task import ImageResult
from segmentation.data import PairedImages, collate
from segmentation.labels import IGNORED

Predict = Callable[[dict[str, list[Any]]], list[Tensor]]
BLACK = np.zeros((1, 3), dtype=np.uint8)


def draw_predictions(
    path: Path, data: PairedImages, results: Sequence[ImageResult], predict: Predict, *, most: int = 6
) -> Path:
    """Write a few validation images, their labels and the model's answer; ignored pixels are black."""
    by_id = {data.image_id(i): i for i in range(len(data))}
    chosen = results if len(results) <= most else [results[i * len(results) // most] for i in range(most)]
    names = data.metainfo["classes"]
    figure = Figure(figsize=(8.4, 2.2 * len(chosen) + 1), layout="constrained")
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    shown: set[int] = set()
    for row, result in zip(grid, chosen, strict=True):
        sample = data[by_id[result.image_id]]
        label_HW = sample["data_samples"].gt_sem_seg.data[0].numpy()
        prediction_HW = predict(collate([sample]))[0].cpu().numpy()
        image_HWC = sample["inputs"].numpy()[::-1].transpose(1, 2, 0)  # BGR to RGB, channels last
        pictures = image_HWC, colour(label_HW, data.palette), colour(prediction_HW, data.palette)
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
        row[0].set_title(result.image_id, fontsize=8)
        row[1].set_title("label", fontsize=8)
        row[2].set_title("prediction", fontsize=8)
        shown |= set(np.unique(label_HW)) | set(np.unique(prediction_HW))
    for axes in grid.flat:
        axes.axis("off")
    patches = [Patch(facecolor=data.palette[i] / 255, label=names[i]) for i in sorted(shown - {IGNORED})]
    if IGNORED in shown:
        patches.append(Patch(facecolor="black", label="ignored"))
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def colour(label_HW: np.ndarray, palette_C3: np.ndarray) -> np.ndarray:
    """Return the classes in their colours, (H, W, 3) uint8, ignored pixels black."""
    return np.concatenate([palette_C3, BLACK])[np.where(label_HW == IGNORED, len(palette_C3), label_HW)]
