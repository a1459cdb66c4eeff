"""Pictures of predictions: beside their labels with a legend, and which classes were taken for which."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from engine.drawing import label_text, legend_columns, write_figure
from engine.images.arrays import RGB, as_picture, shown_as
from engine.images.file import UnreadableImageError
from engine.images.reading import MOST_DRAWN, read_reduced
from engine.records.results_file import ImageResult
from segmentation.data.classes import Classes, palette_of
from segmentation.data.labels import IGNORED, REFUSED, LabelMapping, count_values, read_label_map
from segmentation.data.mapping import PairedImages, collate
from segmentation.data.pairs import Pair

Predict = Callable[[dict[str, list[Any]]], list[Tensor]]
BLACK = np.zeros((1, 3), dtype=np.uint8)
MAGENTA = np.array([255, 0, 255], dtype=np.uint8)
LEGEND_POINTS = 7
SHEET_MOST = 40  # characters of a name, which fit above an image of a sheet
MOST_NAMED = 32  # classes in the legend of a sheet, those with the most pixels


def draw_predictions(
    path: Path, data: PairedImages, results: Sequence[ImageResult], predict: Predict, *, most: int = 6
) -> Path:
    """Write a few validation images, their labels and the model's prediction; ignored pixels are black."""
    by_id = {data.image_id(i): i for i in range(len(data))}
    chosen = results if len(results) <= most else [results[i * len(results) // most] for i in range(most)]
    names = data.metainfo["classes"]
    figure = Figure(figsize=(8.4, 2.2 * len(chosen) + 1), layout="constrained")
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    shown: set[int] = set()
    for row, result in zip(grid, chosen, strict=True):
        sample = data[by_id[result.image_id]]
        label_HW = thinned(sample["data_samples"].gt_sem_seg.data[0].numpy())
        prediction_HW = thinned(predict(collate([sample]))[0].cpu().numpy())
        image_HWC = thinned(_shown(sample["inputs"].numpy()))
        if (channels := len(sample["inputs"])) != RGB:
            figure.suptitle(shown_as(channels), fontsize=8)
        pictures = image_HWC, colour(label_HW, data.palette), colour(prediction_HW, data.palette)
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
        row[0].set_title(label_text(result.image_id, keep="end"), fontsize=8)
        row[1].set_title("label", fontsize=8)
        row[2].set_title("prediction", fontsize=8)
        shown |= set(np.unique(label_HW)) | set(np.unique(prediction_HW))
    for axes in grid.flat:
        axes.axis("off")
    patches = [Patch(facecolor=data.palette[i] / 255, label=label_text(names[i])) for i in sorted(shown - {IGNORED})]
    if IGNORED in shown:
        patches.append(Patch(facecolor="black", label="ignored"))
    _legend(figure, patches)
    write_figure(figure, path)
    return path


def _shown(image_CHW: np.ndarray) -> np.ndarray:
    """Return a model's input for people: BGR as RGB, (H, W, 3), and other than three channels as `as_picture` does."""
    if len(image_CHW) != RGB:
        return np.asarray(as_picture(image_CHW.transpose(1, 2, 0)))
    rgb_HW3: np.ndarray = image_CHW[::-1].transpose(1, 2, 0)
    return rgb_HW3


def draw_confusion(path: Path, total_CC: np.ndarray, names: Sequence[str], *, most: int = 20) -> Path:
    """Write the confusion matrix, each row in percent of the pixels that are labelled so.

    Classes that are neither labelled nor predicted are left out; of more than `most` those are shown that lose or
    attract the largest shares.
    """
    label_C = total_CC.sum(axis=1, keepdims=True)
    share_CC = 100 * total_CC / np.maximum(label_C, 1)  # rows of classes that are not labelled stay 0
    wrong_CC = share_CC - np.diag(share_CC.diagonal())
    worst = np.argsort(-np.maximum(wrong_CC.max(axis=0), wrong_CC.max(axis=1)), kind="stable")
    occurs_C = (total_CC.sum(axis=0) + total_CC.sum(axis=1)) > 0
    chosen = np.sort([number for number in worst if occurs_C[number]][:most])
    shown = share_CC[np.ix_(chosen, chosen)]
    side = 2.5 + 0.36 * len(chosen)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shown, cmap="Blues", vmin=0, vmax=100)
    short = [label_text(names[number].split(",")[0], most=30) for number in chosen]
    axes.set_xticks(range(len(chosen)), short, rotation=90, fontsize=8)
    axes.set_yticks(range(len(chosen)), short, fontsize=8)
    for (row, column), value in np.ndenumerate(shown):
        if value >= 0.5:
            ink = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_title(f"percent of the labelled pixels, {len(chosen)} of {len(names)} classes", fontsize=9)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    figure.colorbar(picture, ax=axes, shrink=0.8)
    write_figure(figure, path)
    return path


def draw_sheet(
    path: Path,
    pairs: Sequence[Pair],
    classes: Classes,
    label_mapping: LabelMapping,
    *,
    most: int = 12,
    channels: int = RGB,
) -> tuple[UnreadableImageError, ...]:
    """Write a contact sheet: images beside their label maps in colours; ignored pixels are black, others' magenta.

    Returns what could not be read of it, whose place is empty.
    """
    chosen = pairs if len(pairs) <= most else [pairs[i * len(pairs) // most] for i in range(most)]
    palette = palette_of(classes)
    columns = 2 if len(chosen) > 1 else 1
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.3 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    shown: Counter[int] = Counter()
    unreadable = []
    for number, pair in enumerate(chosen):
        left, right = grid[number // columns][2 * (number % columns) :][:2]
        try:
            (image, (width, height)) = read_reduced(pair.image, channels=channels)
            label_HW = read_label_map(pair.labels)
        except UnreadableImageError as error:
            unreadable.append(error)
            left.set_title(f"{label_text(pair.image_id, most=SHEET_MOST, keep='end')}\nunreadable", fontsize=7)
            continue
        table = dict(enumerate(label_mapping.table))
        for value, pixels in count_values(label_HW).items():
            shown[table.get(value, REFUSED)] += pixels
        small_HW = thinned(label_HW)
        inside = (small_HW >= 0) & (small_HW <= IGNORED)
        class_HW = np.where(inside, np.array(label_mapping.table)[np.where(inside, small_HW, IGNORED)], REFUSED)
        picture = colour(np.where(class_HW == REFUSED, IGNORED, class_HW), palette)
        picture[class_HW == REFUSED] = MAGENTA
        left.imshow(image)
        right.imshow(picture, interpolation="nearest")
        name = label_text(pair.image_id, most=SHEET_MOST, keep="end")
        left.set_title(f"{name}\n{width} x {height}{drawn_at((width, height))}", fontsize=7)
        right.set_title(label_text(pair.labels.name, most=SHEET_MOST, keep="end"), fontsize=7)
    named = [number for number, _ in shown.most_common() if number not in (IGNORED, REFUSED)][:MOST_NAMED]
    patches = [
        Patch(facecolor=palette[i] / 255, label=label_text(classes.names[i].split(",")[0])) for i in sorted(named)
    ]
    patches += [Patch(facecolor="black", label="ignored")] if IGNORED in shown else []
    patches += [Patch(facecolor="magenta", label="no class")] if REFUSED in shown else []
    if channels != RGB:
        figure.suptitle(shown_as(channels), fontsize=8)
    _legend(figure, patches)
    write_figure(figure, path)
    return tuple(unreadable)


def _legend(figure: Figure, patches: Sequence[Patch]) -> None:
    """Add a legend below, no wider than the figure, which grows by its rows beyond two."""
    width, height = figure.get_size_inches()
    columns = legend_columns([str(patch.get_label()) for patch in patches], inches=width, points=LEGEND_POINTS)
    rows = -(-len(patches) // columns)
    figure.set_size_inches(width, height + max(0, rows - 2) * 1.5 * LEGEND_POINTS / 72)
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=LEGEND_POINTS, frameon=False)


def colour(label_HW: np.ndarray, palette_C3: np.ndarray) -> np.ndarray:
    """Return the classes in their colours, (H, W, 3) uint8, ignored pixels black."""
    return np.concatenate([palette_C3, BLACK])[np.where(label_HW == IGNORED, len(palette_C3), label_HW)]


def thinned(map_HW: np.ndarray) -> np.ndarray:
    """Return every k-th row and column, such that neither side is longer than MOST_DRAWN; whole where none is."""
    step = -(-max(map_HW.shape[:2]) // MOST_DRAWN)
    return map_HW[::step, ::step]


def drawn_at(size: tuple[int, int]) -> str:
    """Return what a caption adds for an image that is drawn smaller than it is, or nothing."""
    return f", drawn at most {MOST_DRAWN} pixels wide or high" if max(size) > MOST_DRAWN else ""
