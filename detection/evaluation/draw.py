"""Pictures of detections beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from detection.data.coco_masks import decoded
from engine.drawing import label_text, write_figure
from engine.images.reading import read_rgb
from engine.palette import ink_on, told_apart

PANEL_INCHES = 5.0
LABEL_INCHES = 0.17  # height of a label
LABEL_FROM = 0.75  # of the width: a label that begins further right ends at its box's right side
MOST_SHARE = 4.0  # of a panel's sides
MIN_SCORE = 0.3  # detections below it would cover the picture
OUTLINE = 1.2  # points on each side of a box's line, in the ink of its label: one of both shows on any image


def draw_pair(
    path: Path,
    image: str,
    *,
    truth: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    names: dict[Any, str],
) -> None:
    """Write a PNG of the image twice: annotations on the left, detections with their scores on the right.

    Both are in COCO's form (`bbox`, `category_id`, `segmentation` where there is one, `score`).
    """
    found = [item for item in found if item["score"] >= MIN_SCORE]
    titles = (f"ground truth: {len(truth)}", _found_title(found, MIN_SCORE))
    _draw(path, image, sides=(truth, found), titles=titles, names=names)


def draw_detections(
    path: Path, image: str, *, found: Sequence[dict[str, Any]], names: dict[Any, str], min_score: float = MIN_SCORE
) -> None:
    """Write a PNG of the image with its detections of `min_score` and more, and their scores."""
    found = [item for item in found if item["score"] >= min_score]
    _draw(path, image, sides=(found,), titles=(_found_title(found, min_score),), names=names)


def _draw(
    path: Path,
    image: str,
    *,
    sides: Sequence[Sequence[dict[str, Any]]],
    titles: Sequence[str],
    names: dict[Any, str],
) -> None:
    image_HW3 = np.asarray(read_rgb(image))
    height, width = image_HW3.shape[:2]
    figure = Figure(
        figsize=(len(sides) * PANEL_INCHES, PANEL_INCHES * _share(height / width) + 0.4), layout="constrained"
    )
    panels = figure.subplots(1, len(sides), squeeze=False)[0]
    for panel, objects, title in zip(panels, sides, titles, strict=True):
        panel.set_title(title, fontsize=9)
        draw_objects(panel, image_HW3, objects, names=names)
    write_figure(figure, path, dpi=100)


def draw_objects(
    panel: Axes, image_HW3: np.ndarray, objects: Sequence[dict[str, Any]], *, names: dict[Any, str]
) -> None:
    """Draw an image and its objects, the large ones first."""
    height, width = image_HW3.shape[:2]
    panel.imshow(image_HW3, interpolation="nearest", extent=(0, width, height, 0))
    panel.set_axis_off()
    for item in sorted(objects, key=lambda o: -o["bbox"][2] * o["bbox"][3]):
        _draw_object(panel, item, names=names, size=(height, width))
    panel.set(xlim=(0, width), ylim=(height, 0))


def _found_title(found: Sequence[dict[str, Any]], min_score: float) -> str:
    return f"detections with a score of {min_score:g} or more: {len(found)}"


def _draw_object(panel: Axes, item: dict[str, Any], *, names: dict[Any, str], size: tuple[int, int]) -> None:
    red, green, blue = told_apart(len(names))[sorted(names).index(item["category_id"])] / 255
    colour, ink = (red, green, blue), ink_on((red, green, blue))
    if "segmentation" in item:
        mask_HW = decoded(item["segmentation"], size)
        panel.imshow(
            mask_HW[:, :, None] * np.array(to_rgba(colour, 0.45)),
            interpolation="nearest",
            extent=(0, size[1], size[0], 0),
        )
    x, y, width, height = item["bbox"]
    panel.add_patch(
        Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.5, path_effects=_outlined(ink))
    )
    label = label_text(names[item["category_id"]]) + (f" {item['score']:.2f}" if "score" in item else "")
    label += " (crowd)" if item.get("iscrowd") else ""
    # at the upper and right edges of the image the label would be cut off: there it stands inside its box
    line = size[0] * LABEL_INCHES / (PANEL_INCHES * _share(size[0] / size[1]))
    inside, right = y < line, x > LABEL_FROM * size[1]
    panel.text(
        x + width if right else x, max(y, 0) if inside else y, label, fontsize=9, color=ink, clip_on=True,
        va="top" if inside else "bottom", ha="right" if right else "left",
        bbox={"facecolor": colour, "edgecolor": ink, "linewidth": 0.6, "pad": 0.8},
    )  # fmt: skip


def _outlined(ink: str) -> list[AbstractPathEffect]:
    return [withStroke(linewidth=1.5 + 2 * OUTLINE, foreground=ink)]


def _share(height_by_width: float) -> float:
    """Return a panel's height by its width: of images that are all length a strip, which a figure can hold."""
    return min(MOST_SHARE, max(1 / MOST_SHARE, height_by_width))
