"""Images with one object of a class: what is shown as an example, and what is asked for.

Axis letters: I images of a split, A annotations, C classes; H x W pixels.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detection.data.coco import CocoSplit
from detection.data.coco_masks import decoded
from metrics.foreground import Box, filled


@dataclass(frozen=True, eq=False)
class SingleObject:
    """One object of a class, and no other of that class is annotated in its image."""

    split: CocoSplit
    number: int
    """Place of the image in the split."""
    category: int
    """Class, from 0."""
    filled_box: bool
    """Its mask is the box, filled."""

    @property
    def name(self) -> str:
        """File name in the annotations."""
        return self.split.records.name(self.number)

    @property
    def path(self) -> Path:
        """Of the image."""
        return self.split.folder / self.name

    @cached_property
    def _annotation(self) -> dict[str, Any]:
        every = self.split.store.annotations(self.number)
        return next(each for each in every if each["category_id"] == self.category)

    @property
    def box(self) -> Box:
        """As annotated."""
        left, top, width, height = self._annotation["bbox"]
        return left, top, width, height

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image by its annotations."""
        height, width = self.split.store.arrays.size_I2[self.number].tolist()
        return height, width

    def mask(self) -> np.ndarray:
        """Return the pixels of the object, (H, W) bool."""
        if self.filled_box:
            return filled(self.box, self.size)
        return decoded(self._annotation["segmentation"], self.size)


def single_objects(
    split: CocoSplit, *, boxes: bool, least_area: float, most_area: float
) -> dict[int, list[SingleObject]]:
    """Return by class the images with one object of it, no crowd of it, that takes such a share of the image.

    The area is that of the mask, or of the box where `boxes` says that the box is what is shown. By place in the
    split. Raises ValueError for masks of a split without segmentations.
    """
    if not boxes and not split.masks:
        raise ValueError(
            f"{split.annotations}: its annotations have no segmentations; --prompt box shows the boxes, filled."
        )
    arrays, classes = split.store.arrays, len(split.categories)
    image_A = np.repeat(np.arange(len(split.store)), np.diff(arrays.annotation_I))
    pair_A = image_A * classes + arrays.class_A
    pair_P, first_P, count_P = np.unique(pair_A, return_index=True, return_counts=True)
    area_A = np.asarray(arrays.box_A4[:, 2] * arrays.box_A4[:, 3] if boxes else arrays.area_A, dtype=np.float64)
    share_A = area_A / arrays.size_I2[image_A].astype(np.float64).prod(axis=1)
    usable_P = (count_P == 1) & ~np.asarray(arrays.crowd_A, dtype=bool)[first_P]
    usable_P &= (share_A[first_P] >= least_area) & (share_A[first_P] <= most_area)
    found: dict[int, list[SingleObject]] = {number: [] for number in range(classes)}
    for pair in pair_P[usable_P].tolist():
        image, number = divmod(pair, classes)
        found[number].append(SingleObject(split, image, number, boxes))
    return found
