"""What all annotations of a file say together: boxes in other units or orders, masks elsewhere, everything twice.

Single annotations may be so; a file of which most are has been made for another format, and is refused.
"""

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detection.data.defects import Tally, said

FEW = 4  # boxes, below which nothing is concluded from most of them
NEAR = 2.0  # pixels between a mask and the box of it
MANY_TWICE = 0.1  # share of annotations that come twice from which on the second ones are dropped; COCO has a few


class Shapes:
    """Counts boxes and masks as they are read, and says in the end whether they can be meant as COCO means them."""

    def __init__(self) -> None:
        self._boxes = self._in_unit = self._leaving = self._as_corners = 0
        self._masks = self._apart = self._corners_fit = 0

    def add_box(self, box: list[float], *, height: int, width: int) -> None:
        """Take a box of some size as its file has it, and the image's size."""
        x, y, across, down = box
        self._boxes += 1
        self._in_unit += max(box) <= 1 and min(box) >= 0 and min(height, width) > 2
        self._leaving += x + across > width + 1 or y + down > height + 1
        self._as_corners += 0 <= x < across <= width + 1 and 0 <= y < down <= height + 1

    def add_mask(self, box: list[float], extent: tuple[float, float, float, float]) -> bool:
        """Take a box and what its mask covers; return whether they are apart."""
        x, y, across, down = box
        self._masks += 1
        apart = (
            extent[2] < x - NEAR or extent[0] > x + across + NEAR or extent[3] < y - NEAR or extent[1] > y + down + NEAR
        )
        self._apart += apart
        self._corners_fit += _near(extent, (x, y, across, down)) and not _near(extent, (x, y, x + across, y + down))
        return apart

    def check(self, path: Path) -> None:
        """Raise ValueError where most boxes or masks are no COCO."""
        if self._boxes and self._in_unit == self._boxes:
            raise ValueError(
                f"{path}: all {self._boxes} boxes lie between 0 and 1, below a pixel: they are shares of the image's "
                "sides. COCO's are pixels; multiply x and width by the image's width, y and height by its height."
            )
        corners = self._as_corners == self._boxes and 2 * self._leaving > self._boxes
        if self._boxes >= FEW and (corners or 2 * self._corners_fit > self._boxes):
            raise ValueError(
                f"{path}: {self._leaving} of {self._boxes} boxes leave their image, and all or most fit as two corners "
                "(x, y, x, y). COCO's are x, y, width, height: subtract the first two numbers from the last two."
            )
        if self._masks >= FEW and 2 * self._apart > self._masks:
            raise ValueError(
                f"{path}: {self._apart} of {self._masks} masks do not touch their boxes; one of the two is for images "
                "of another size or has x and y exchanged."
            )


def without_repeated(annotations: dict[Any, list[dict[str, Any]]], tally: Tally) -> dict[Any, list[dict[str, Any]]]:
    """Return the annotations by image without those that say the same as one before, where they are many.

    A few are kept, as COCO's own code does; both are counted.
    """
    repeated = {id(raw): raw for found in annotations.values() for raw in _repeated(found)}
    many = len(repeated) > MANY_TWICE * sum(map(len, annotations.values()))
    what = "exact duplicates of another annotation, " + ("dropped" if many else "kept, as COCO's own code does")
    for raw in repeated.values():
        tally.add(what, f"annotation {str(raw.get('id', 'without id'))[:40]}")
    if not many:
        return annotations
    return {key: [raw for raw in found if id(raw) not in repeated] for key, found in annotations.items()}


def count_names(names: Iterable[str], tally: Tally) -> None:
    """Count files that are listed as several images."""
    seen: set[str] = set()
    for name in names:
        plain = posixpath.normpath(name)
        if plain in seen:
            tally.add(
                "images of a file that another image id names too, each trained and scored on by itself", name[:100]
            )
        seen.add(plain)


def no_object(path: Path, *, images: int, crowds: int, tally: Tally) -> ValueError:
    """Return the error of a file without an object."""
    if crowds:
        return ValueError(
            f"{path}: each of its {crowds} annotations that can be used is a crowd (iscrowd 1); there is nothing to "
            "train on or to score. Crowds are regions of many objects; give single objects iscrowd 0."
        )
    lost = "; ".join(map(said, tally.defects()))
    return ValueError(f"{path}: holds {images} images and no annotation that can be used{': ' * bool(lost)}{lost}.")


def _near(extent: tuple[float, float, float, float], corners: tuple[float, float, float, float]) -> bool:
    return all(abs(a - b) <= NEAR for a, b in zip(extent, corners, strict=True))


def _repeated(annotations: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yield the annotations of an image whose class, box, mask and crowd are those of one before."""
    first: dict[Any, list[dict[str, Any]]] = {}
    for raw in annotations:
        try:
            alike = first.setdefault((raw.get("category_id"), tuple(raw["bbox"]), raw.get("iscrowd")), [])
        except (KeyError, TypeError):  # no box or no class: refused when it is read
            continue
        if any(raw.get("segmentation") == other.get("segmentation") for other in alike):
            yield raw
        else:
            alike.append(raw)
