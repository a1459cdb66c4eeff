"""Pictures of queries: answer and truth, and where the answer is from: patches of the examples, or a painted canvas.

Axis letters: H x W pixels, P patches (row-major).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engine.drawing import label_text, write_figure
from engine.images.reading import read_reduced
from metrics.foreground import Box
from segmentation.in_context.answers import Answer
from segmentation.in_context.images import HALF, Example, patch_shares
from segmentation.probe.patches import Grid

NAME = "in_context.png"
MOST_ROWS = 6
MOST_EXAMPLES = 3  # drawn of a query
SIDE = 320  # pixels of the longer side of a drawn image
PANEL = 2.0  # inches
TINT = 0.5  # of a colour over an image
DARK = 0.4  # brightness of patches that are no foreground
ANSWER, TRUTH, EXAMPLE = (214, 39, 40), (44, 160, 44), (31, 119, 180)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A query as it is drawn."""

    title: str
    path: Path
    predicted_HW: np.ndarray
    box: Box | None
    truth_HW: np.ndarray | None
    true_box: Box | None
    examples: tuple[Example, ...]
    answer: Answer
    grid: Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class _Panel:
    title: str
    image_HW3: np.ndarray
    box: Box | None = None
    """In pixels of the image."""
    colour: tuple[int, int, int] = ANSWER


def draw_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write a row for each query: truth, answer with its box, what it was shown, and where the answer is from."""
    panels = [_panels(row) for row in rows]
    most = max(len(row) for row in panels)
    figure = Figure(figsize=(PANEL * most, (PANEL + 0.35) * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), most, squeeze=False)
    for axes_row, row, shown in zip(cells, rows, panels, strict=True):
        for axes, panel in zip(axes_row, [*shown, *[None] * (most - len(shown))], strict=True):
            axes.axis("off")
            if panel is not None:
                _draw(axes, panel)
        axes_row[0].text(
            -0.03, 0.5, label_text(row.title, most=34, keep="end"), fontsize=6, rotation="vertical",
            ha="right", va="center", transform=axes_row[0].transAxes,
        )  # fmt: skip
    return write_figure(figure, path)


def position_colours(grid: Grid, number: int, share_P: np.ndarray) -> np.ndarray:
    """Return a colour for each patch of an example, (P, 3) uint8: red by row, green by column, blue by example.

    A patch that is foreground by less than a half is dark.
    """
    row_hw, column_hw = np.mgrid[0 : grid[0], 0 : grid[1]]
    red, green = row_hw / max(1, grid[0] - 1), column_hw / max(1, grid[1] - 1)
    blue = np.full(grid, (0.0, 1.0, 0.5)[number % 3])
    bright_P = np.where(share_P > HALF, 1.0, DARK)
    colour_P3 = 0.15 + 0.85 * np.stack([red, green, blue], axis=2).reshape(-1, 3)
    return np.rint(colour_P3 * bright_P[:, None] * 255).astype(np.uint8)


def _panels(row: Row) -> list[_Panel]:
    image, (width, height) = read_reduced(row.path, SIDE)
    image_HW3 = np.asarray(image.convert("RGB"))
    factor = image.width / width, image.height / height
    panels = []
    if row.truth_HW is not None:
        truth = _tinted(image_HW3, _at(row.truth_HW, image_HW3), TRUTH)
        panels.append(_Panel(title="truth", image_HW3=truth, box=_scaled(row.true_box, factor), colour=TRUTH))
    answer = _tinted(image_HW3, _at(row.predicted_HW, image_HW3), ANSWER)
    said = "answer" if row.box is not None else "answer: no pixel"
    panels.append(_Panel(title=said, image_HW3=answer, box=_scaled(row.box, factor)))
    drawn = row.examples[:MOST_EXAMPLES]
    more = f" (of {len(row.examples)})" if len(row.examples) > len(drawn) else ""
    for number, example in enumerate(drawn):
        shown = _tinted(np.asarray(example.image), _at(example.mask_HW, np.asarray(example.image)), EXAMPLE)
        panels.append(_Panel(title=f"example {number + 1}{more}", image_HW3=shown))
        if row.answer.origin_P2 is not None:
            panels.append(_Panel(title="its patches", image_HW3=_colours(row, number).reshape(*row.grid, 3)))
    if row.answer.origin_P2 is not None:
        panels.append(_Panel(title="nearest of each patch", image_HW3=_origins(row)))
    if row.answer.canvases is not None:
        titles = ("canvas", "painted")
        panels += [_Panel(title=t, image_HW3=image) for t, image in zip(titles, row.answer.canvases, strict=True)]
    return panels


def _colours(row: Row, number: int) -> np.ndarray:
    share_P1, _ = patch_shares(row.examples[number].mask_HW, row.grid)
    return position_colours(row.grid, number, share_P1[:, 0].numpy())


def _origins(row: Row) -> np.ndarray:
    """Return each patch in the colour of the patch that is nearest to it, black where its example is not drawn."""
    assert row.answer.origin_P2 is not None
    tables = [_colours(row, number) for number in range(min(len(row.examples), MOST_EXAMPLES))]
    colours = [
        tables[number][position] if number < len(tables) else np.zeros(3, dtype=np.uint8)
        for number, position in row.answer.origin_P2.tolist()
    ]
    return np.stack(colours).reshape(*row.grid, 3)


def _draw(axes: Any, panel: _Panel) -> None:
    axes.imshow(panel.image_HW3, interpolation="nearest")
    axes.set_title(panel.title, fontsize=7)
    if panel.box is not None:
        left, top, width, height = panel.box
        colour = tuple(value / 255 for value in panel.colour)
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.5))


def _at(mask_HW: np.ndarray, image_HW3: np.ndarray) -> np.ndarray:
    """Return a mask at the size of an image, by the nearest pixel."""
    rows, columns = (
        (np.arange(side) * of) // side for side, of in zip(image_HW3.shape[:2], mask_HW.shape, strict=True)
    )
    return np.asarray(mask_HW[rows[:, None], columns])


def _tinted(image_HW3: np.ndarray, mask_HW: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    mixed = (1 - TINT) * image_HW3 + TINT * np.array(colour)
    return np.where(mask_HW[:, :, None], mixed, image_HW3).round().astype(np.uint8)


def _scaled(box: Box | None, factor: tuple[float, float]) -> Box | None:
    if box is None:
        return None
    return box[0] * factor[0], box[1] * factor[1], box[2] * factor[0], box[3] * factor[1]
