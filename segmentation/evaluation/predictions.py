"""The model's prediction for an image of any origin: as JSON values, as an index PNG, and laid over the image.

Axis letters: H x W pixels, C classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from pycocotools import mask as coco_mask

from engine.drawing import label_text, legend_columns, write_figure
from engine.images.arrays import RGB, shown_as
from engine.images.reading import read_reduced
from segmentation.data.convert import write_labels
from segmentation.data.labels import IGNORED, count_values
from segmentation.evaluation.pictures import colour, drawn_at

LEGEND_POINTS = 8
OPACITY = 0.55  # of the class colours over the image
MOST_NAMED = 24  # classes in the legend, those with the most pixels


def as_values(class_HW: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the classes found, the largest first: number, name, pixels, and the mask as COCO's run-length code."""
    pixels_C = pixels_of(class_HW, len(names))
    found = []
    for number in np.argsort(-pixels_C, kind="stable")[: int((pixels_C > 0).sum())].tolist():
        code = coco_mask.encode(np.asfortranarray(class_HW == number).view(np.uint8))
        mask = {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
        found.append({"class": number, "name": names[number], "pixels": int(pixels_C[number]), "mask": mask})
    return {"classes": found}


def pixels_of(class_HW: np.ndarray, classes: int) -> np.ndarray:
    """Return the pixels of every class."""
    counts = count_values(class_HW)
    return np.array([counts.get(number, 0) for number in range(classes)])


def from_values(values: dict[str, Any]) -> np.ndarray:
    """Return the class of every pixel, (H, W) uint8, from what `as_values` made."""
    class_HW = np.full(values["classes"][0]["mask"]["size"], IGNORED, dtype=np.uint8)
    for found in values["classes"]:
        class_HW[coco_mask.decode(found["mask"]).view(bool)] = found["class"]
    return class_HW


def write_index(path: Path, class_HW: np.ndarray, palette_C3: np.ndarray, numbers: Sequence[int]) -> Path:
    """Write an index PNG with a palette, in the `numbers` that the data set's own label maps have (ADE20K: from 1)."""
    stored = list(numbers)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[stored] = palette_C3
    table = np.array(stored + [IGNORED] * (256 - len(stored)), dtype=np.uint8)
    return write_labels(path, cv2.LUT(class_HW, table), palette)


def draw_overlay(
    path: Path,
    image: Path,
    class_HW: np.ndarray,
    *,
    names: Sequence[str],
    palette_C3: np.ndarray,
    channels: int = RGB,
) -> Path:
    """Write the image with the classes in their colours over it, and a legend.

    An image of more than MOST_DRAWN pixels a side is drawn reduced, and one of other than three `channels` by some of
    them, which the picture says.
    """
    height, width = class_HW.shape
    small, _ = read_reduced(image, channels=channels)
    small_HW = np.asarray(Image.fromarray(class_HW).resize(small.size, Image.Resampling.NEAREST))
    mixed = (1 - OPACITY) * np.asarray(small).astype(np.float32) + OPACITY * colour(small_HW, palette_C3)
    pixels_C = pixels_of(class_HW, len(names))
    shown = np.argsort(-pixels_C, kind="stable")[: min(MOST_NAMED, int((pixels_C > 0).sum()))]
    side = 7.0  # inches; the picture is for looking at, the index PNG keeps the pixels
    tall = min(2.0, max(0.5, height / width)) * side
    labels = [f"{label_text(names[i].split(',')[0])} {pixels_C[i] / class_HW.size:.0%}" for i in shown]
    columns = legend_columns(labels, inches=side, points=LEGEND_POINTS)
    figure = Figure(figsize=(side, tall + 0.2 * (1 - -len(shown) // columns)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mixed.round().astype(np.uint8), interpolation="nearest")
    axes.axis("off")
    said = [f"{width} x {height}{reduced}"] if (reduced := drawn_at((width, height))) else []
    said += [] if channels == RGB else [shown_as(channels)]
    if said:
        axes.set_title("; ".join(said), fontsize=8)
    patches = [Patch(facecolor=palette_C3[i] / 255, label=text) for i, text in zip(shown, labels, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=LEGEND_POINTS, frameon=False)
    write_figure(figure, path)
    return path
