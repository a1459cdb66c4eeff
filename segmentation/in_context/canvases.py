"""Canvases with their answers as an image folder, which `tools/pretrain.py` takes as it is.

`--augmentation none` shows a model the centre of an image: its side is 224 / 256 of the resized one. A canvas is
written in a white margin, so that this centre is the canvas, pixel for pixel.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from engine.images.file import UnreadableImageError
from files.writing import replacing
from segmentation.in_context.canvas import canvas, cell_size
from segmentation.in_context.episodes import Drawn
from segmentation.in_context.images import Size, read_example

CENTRE = 224 / 256  # the centre crop of pre-training, pretraining/augment.py


def with_margin(canvas_HW3: np.ndarray) -> np.ndarray:
    """Return a canvas in white, as large as the image whose centre crop it is."""
    sides = canvas_HW3.shape[:2]
    made = np.full((*(int(side / CENTRE) for side in sides), 3), 255, dtype=np.uint8)
    # torchvision's CenterCrop begins at half of the difference, rounded to even
    top, left = (round((int(side / CENTRE) - side) / 2) for side in sides)
    made[top : top + sides[0], left : left + sides[1]] = canvas_HW3
    return made


def write_canvases(folder: Path, episodes: Drawn, size: Size) -> tuple[int, list[str]]:
    """Write a PNG for each episode below `folder`, and return how many, and a line for each that could not be read.

    Each shows a query beside its first example, with both masks. Raises ValueError for a canvas that cannot be halved.
    """
    cell = cell_size(size)
    count, unreadable = 0, []
    for of_class in episodes.classes:
        for number, episode in enumerate(of_class.episodes):
            try:
                example, query = (read_example(picture, cell) for picture in (episode.examples[0], episode.query))
            except UnreadableImageError as error:
                unreadable.append(str(error))
                continue
            whole = canvas(example.image, example.mask_HW, query.image, size, query.mask_HW)
            with replacing(folder / f"{of_class.category:04d}-{number:06d}.png") as temporary:
                Image.fromarray(with_margin(whole)).save(temporary, format="PNG")
            count += 1
    return count, unreadable
