"""Segmentations of COCO's annotations, checked before compiled code sees them: polygons or run lengths."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as rle

from detection.data.run_lengths import checked_runs

MOST_SIDE = 2**20  # pixels of an image with masks: the rasteriser counts fifths of a pixel in 32 bits
MOST_PIXELS = 2**32  # run lengths are 32-bit numbers
_NUMBERS = {int, float}


@dataclass(frozen=True)
class Mask:
    """A segmentation that can be used, or has no pixel."""

    polygons: list[list[float]]
    """Of three points or more; empty where there are run lengths."""
    runs: bytes
    """Compressed run lengths."""
    pixels: int
    """In the image."""
    extent: tuple[float, float, float, float]
    """Left, top, right and bottom of what is drawn."""
    short: int = 0
    """Polygons of fewer than three points, which are left out."""
    far: bool = False
    """A point is farther from the image than the image is wide or high: not drawn."""


def read_mask(value: Any, *, height: int, width: int) -> Mask:
    """Return a segmentation. Raises ValueError that says of the annotation, which its caller names, what is wrong."""
    if height * width >= MOST_PIXELS or max(height, width) > MOST_SIDE:
        raise ValueError(
            f"has a mask in an image of {width}x{height} pixels; with masks, sides are {MOST_SIDE:,} pixels at most "
            f"and an image has fewer than {MOST_PIXELS:,}."
        )
    if isinstance(value, list):
        return _polygons(value, height, width)
    runs = checked_runs(value, height=height, width=width)
    left, top, across, down = rle.toBbox(runs).tolist()
    text = runs["counts"].encode("ascii")
    return Mask([], text, int(rle.area(runs)), (left, top, left + across, top + down))


def decoded(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Return a checked segmentation (polygons or run lengths) as pixels, (H, W) bool."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, *size))
    return np.asarray(rle.decode(segmentation), dtype=bool)


def _polygons(value: list[Any], height: int, width: int) -> Mask:
    usable = [polygon for polygon in value if isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0]
    try:
        right = all(
            isinstance(polygon, list)
            and set(map(type, polygon)) <= _NUMBERS
            and math.isfinite(sum(map(float, polygon)))
            for polygon in value
        )
    except OverflowError:  # a whole number beyond floats
        right = False
    if not right:
        raise ValueError("has a segmentation that is no list of polygons [[x, y, x, y, ...], ...].")
    short = len(value) - len(usable)
    if not usable:
        return Mask([], b"", 0, (0, 0, 0, 0), short)
    x = [number for polygon in usable for number in polygon[::2]]
    y = [number for polygon in usable for number in polygon[1::2]]
    extent = (min(x), min(y), max(x), max(y))
    if extent[0] < -width or extent[1] < -height or extent[2] > 2 * width or extent[3] > 2 * height:
        return Mask(usable, b"", 0, extent, short, far=True)
    drawn = rle.frPyObjects(usable, height, width)
    pixels = int(rle.area(drawn[0] if len(drawn) == 1 else rle.merge(drawn)))
    return Mask(usable, b"", pixels, extent, short)
