"""What every reader of a detection format gives: splits of pictures with their objects, and what it left out.

Boxes are x, y, width, height in pixels from the upper left corner of the image, as in COCO. Nothing is clipped or
dropped for its geometry here: the reader of COCO files does that in training as in the check, by one rule.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detection.data.coco_fields import shown
from detection.data.defects import Tally, said
from engine.images.file import UnreadableImageError, upright_size

USUAL = {
    "train": ("training", "default", "train2017"),  # `default` is CVAT's, of what has no subset
    "val": ("valid", "validation", "dev", "val2017"),
    "test": ("testing", "test2017"),
}
Box = tuple[float, float, float, float]

UNREADABLE = "images that cannot be read, left out"
MISSING = "images that are not there, left out with their annotations"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object of a picture."""

    label: int
    """Place in `DataSet.names`."""
    box: Box
    segmentation: list[list[float]] | dict[str, Any] | None = None
    """Polygons, or run lengths, as in COCO."""
    crowd: bool = False
    """Not trained on, and detections on it do not count."""
    area: float | None = None
    """Stated by the source, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image and its objects."""

    path: Path
    name: str
    """Path below the folder of the split, with forward slashes."""
    size: tuple[int, int]
    """Width and height in pixels: stated by the source or, where it states none, of the image."""
    instances: list[Instance]
    source: str
    """What messages call the annotations."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that is being read; its pictures are read as they are asked for."""

    names: tuple[str, ...]
    """Of the classes."""
    splits: Mapping[str, Iterable[Picture]]
    """By the source's names."""
    tally: Tally = field(default_factory=Tally)
    """What is left out or read otherwise than it stands there, each with its number; it grows with every picture."""

    def left_out(self) -> list[str]:
        """Return a line for everything counted so far."""
        return [said(defect) for defect in self.tally.defects()]


def usual_splits(names: Iterable[str], *, behind: str = "") -> dict[str, str]:
    """Return the folder of each split: train, val or test with what is `behind` these, or the split's own name.

    Raises ValueError where two would have one folder, and for a name that is no folder's.
    """
    usual = {other: f"{name}{behind}" for name, others in USUAL.items() for other in (name, *others)}
    found: dict[str, str] = {}
    for name in names:
        folder = usual.get(name.lower(), name)
        if (other := next((key for key, value in found.items() if value == folder), None)) is not None:
            raise ValueError(f"the splits {other!r} and {name!r} would both become {folder}; rename one.")
        if "/" in folder or "\\" in folder or folder.startswith(".") or folder == "annotations":
            raise ValueError(f"the split {name!r} cannot be a folder's name; rename it.")
        found[name] = folder
    return found


def validation_note(folders: Iterable[str], tool: str, out: Path) -> list[str]:
    """Return a line on how images for validation are set aside, where no split is for that."""
    if any(folder.startswith("val") for folder in folders):
        return []
    return [
        f"no images for validation: `python tools/hold_out.py {tool} --data {out} --out {out}-held-out --share 0.1` "
        "sets a part of the training images aside, as links"
    ]


def size_of(path: Path, tally: Tally) -> tuple[int, int] | None:
    """Return an image's width and height, upright, from its header; None, and counted, where it cannot be read."""
    try:
        return upright_size(path)
    except UnreadableImageError as error:
        tally.add(UNREADABLE, f"{path.name} ({error.reason})")
        return None


def extent(polygons: Iterable[list[float]]) -> Box:
    """Return the box around polygons [x, y, x, y, ...]."""
    listed = list(polygons)
    x = [value for polygon in listed for value in polygon[::2]]
    y = [value for polygon in listed for value in polygon[1::2]]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def parse_number(text: str, what: str, kind: Callable[[str], float] = float) -> float:
    """Return a finite number, whole by `kind=int`. Raises ValueError that begins with `what`."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{what} is {shown(text)}; it must be a {'whole ' * (kind is int)}number of pixels.")
    return value
