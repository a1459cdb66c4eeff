"""The canvas of Bar et al. (arXiv 2209.00647, figure 2): example and mask above, query and answer below.

Each cell is half of the canvas less a pixel, in its corner, so that 2 pixels between them are white: 224 pixels have
cells of 111. Foreground is white, background black; an answer is read as the nearer of the two (section 3.2).

Axis letters: H x W pixels of the canvas, h x w of a cell, B batch, P patches.
"""

import numpy as np
from PIL import Image

from segmentation.in_context.images import HALF, Size
from segmentation.probe.patches import Grid

BACKGROUND, FOREGROUND = np.zeros(3), np.full(3, 255.0)
GAP = 1  # pixels of each cell on each side of the middle


def cell_size(canvas: Size) -> Size:
    """Return height and width of a cell. Raises ValueError for a canvas whose middle is not between pixels."""
    if canvas[0] % 2 or canvas[1] % 2 or min(canvas) < 2 * (GAP + 1):
        raise ValueError(f"a canvas of {canvas[1]}x{canvas[0]} pixels has no four equal cells; give even sides.")
    return canvas[0] // 2 - GAP, canvas[1] // 2 - GAP


def hole(grid: Grid) -> np.ndarray:
    """Return which patches are the fourth cell, (rows, columns) bool. Raises ValueError for an odd grid."""
    rows, columns = grid
    if rows % 2 or columns % 2:
        raise ValueError(
            f"a canvas of {rows} x {columns} patches cannot be halved, so that no quarter of its patches is the "
            "answer; pre-train at an image size with an even number of patches on each side."
        )
    hidden = np.zeros(grid, dtype=bool)
    hidden[rows // 2 :, columns // 2 :] = True
    return hidden


def painted(mask_HW: np.ndarray, cell: Size) -> np.ndarray:
    """Return a mask as a cell in two colours, (h, w, 3) uint8."""
    share = Image.fromarray(mask_HW.astype(np.uint8) * 255).resize((cell[1], cell[0]), Image.Resampling.BOX)
    chosen = (np.asarray(share) > HALF * 255)[:, :, None]
    return np.where(chosen, FOREGROUND, BACKGROUND).astype(np.uint8)


def canvas(
    example: Image.Image, mask_HW: np.ndarray, query: Image.Image, size: Size, answer_HW: np.ndarray | None = None
) -> np.ndarray:
    """Return the canvas, (H, W, 3) uint8; images are of the size of a cell, masks of any.

    Without an answer its cell is white as the gaps: it is hidden from the model.
    """
    h, w = cell_size(size)
    made = np.full((*size, 3), 255, dtype=np.uint8)
    made[:h, :w], made[:h, -w:] = np.asarray(example), painted(mask_HW, (h, w))
    made[-h:, :w] = np.asarray(query)
    if answer_HW is not None:
        made[-h:, -w:] = painted(answer_HW, (h, w))
    return made


def read_answer(canvas_HW3: np.ndarray) -> np.ndarray:
    """Return how near the fourth cell is to the foreground's colour, (h, w) from 0 to 1.

    The place along the line from the background's colour to the foreground's: above a half the foreground's is the
    nearer one, whatever the colour is.
    """
    h, w = cell_size((canvas_HW3.shape[0], canvas_HW3.shape[1]))
    along = FOREGROUND - BACKGROUND
    place_hw = (canvas_HW3[-h:, -w:].astype(np.float64) - BACKGROUND) @ along / (along @ along)
    return np.asarray(np.clip(place_hw, 0, 1))
