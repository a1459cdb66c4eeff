"""Writing objects with polygons or masks as label maps for segmentation, in the layout `folder`.

`images/{train,val}/`, `labels/{train,val}/x.png`, `classes.txt`. Where objects overlap the smaller one is seen, and of
two of one size the later. A pixel of no object is ignored, or of the class `background`.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pycocotools.mask as rle
from PIL import Image

from conversion.dataset import DataSet, Picture, usual_splits, validation_note
from detection.data.coco_masks import read_mask
from detection.data.defects import Tally
from engine.images.file import most_megapixels, too_large
from files.naming import inside
from files.writing import link_or_copy, new_folder
from segmentation.data.labels import IGNORED, MOST_CLASSES


def write_label_maps(data: DataSet, out: Path, *, copy: bool = False, background: str | None = None) -> list[str]:
    """Write the data set to `out`, a new folder, and return a line for each split and for what was left out.

    Raises ValueError for classes that label maps cannot hold, two images of one stem, a segmentation that is none, and
    a split in which no object has one.
    """
    names = (*((background,) if background is not None else ()), *data.names)
    if len(names) > MOST_CLASSES or len(set(names)) < len(names) or any(set("\t\r\n") & set(name) for name in names):
        raise ValueError(
            f"{out}: {len(names)} classes; label maps hold {MOST_CLASSES} at most, whose names differ and have no tab "
            "and no line break."
        )
    folders = usual_splits(data.splits)
    lines = []
    with new_folder(out) as root:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for split, pictures in data.splits.items():
            first = len(names) - len(data.names)
            images, objects = _write_split(root, folders[split], pictures, data.tally, first=first, copy=copy)
            if not objects:
                raise ValueError(f"{out}: no object of the split {split!r} has a polygon or a mask to draw.")
            lines.append(f"{folders[split]}: {images} label maps of split {split!r}, {objects} objects drawn")
    return [*lines, *data.left_out(), *validation_note(folders.values(), "train_seg --layout folder", out)]


def _write_split(
    root: Path, folder: str, pictures: Iterable[Picture], tally: Tally, *, first: int, copy: bool
) -> tuple[int, int]:
    """Write the images and label maps of a split; class k is drawn as k + `first`. Return how many images, objects."""
    images, objects = 0, 0
    for picture in pictures:
        source = Path(picture.source)
        image = inside(root / "images" / folder, picture.name, source=source)
        stem = str(PurePosixPath(picture.name).with_suffix(".png"))
        target = inside(root / "labels" / folder, stem, source=source)
        if target.exists():
            raise ValueError(f"{source}: the label map of {picture.name} is also that of another image; rename one.")
        label_HW, drawn = _drawn(picture, tally, first=first)
        link_or_copy(picture.path, image, copy=copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label_HW).save(target, format="png")
        images, objects = images + 1, objects + drawn
    return images, objects


def _drawn(picture: Picture, tally: Tally, *, first: int) -> tuple[np.ndarray, int]:
    """Return the label map (H, W) uint8 of a picture, and how many objects are on it."""
    width, height = picture.size
    if width * height > (most := most_megapixels()) * 10**6:
        raise ValueError(f"{picture.source}: {picture.name} has {width}x{height} pixels: {too_large(most)}.")
    found: list[tuple[int, int, dict[str, Any]]] = []
    for instance in picture.instances:
        if instance.segmentation is None:
            tally.add("objects with a box alone, left out of the label maps", picture.name)
            continue
        try:
            mask = read_mask(instance.segmentation, height=height, width=width)
        except ValueError as error:
            raise ValueError(f"{picture.source}: an object of {picture.name} {error}") from error
        if not mask.pixels:
            tally.add("objects without a pixel in their image, left out", picture.name)
            continue
        drawn = rle.merge(rle.frPyObjects(mask.polygons, height, width)) if mask.polygons else None
        runs = drawn or {"size": [height, width], "counts": mask.runs}
        found.append((mask.pixels, instance.label + first, runs))
    label_HW = np.full((height, width), 0 if first else IGNORED, np.uint8)
    for _, label, runs in sorted(found, key=lambda entry: -entry[0]):  # stable: of one size the later is on top
        label_HW[rle.decode(runs).astype(bool)] = label
    return label_HW, len(found)
