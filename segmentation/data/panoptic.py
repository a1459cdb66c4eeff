"""COCO's panoptic annotations turned into a semantic set in the `folder` layout.

A panoptic PNG codes the segment of a pixel in its colour, R + 256 G + 65536 B; the JSON says which category a segment
is of (panopticapi, `utils.rgb2id`). Segments of one category become one class; 0, what nobody labelled, is ignored.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from files.naming import distinct_stems, files_below, inside, nearest, refuse_overwriting
from files.writing import replacing
from segmentation.data.classes import CLASS_LIST, Classes, read_class_list, write_class_list
from segmentation.data.convert import codes_to_labels, read_colours, write_labels
from segmentation.data.labels import IGNORED
from segmentation.data.pairs import some
from segmentation.data.panoptic_json import read_panoptic

RADIX = (1, 256, 65536)


def convert_panoptic(annotations: Path, pngs: Path, images: Path, out: Path, *, split: str = "train") -> int:
    """Write `out/{images,labels}/split/` and `out/classes.txt`, and return the number of images.

    The classes are the categories of the JSON in their order. Every image has a name of its own: images of one base
    name in several folders, or with several endings, get a digest of their path behind it.

    Raises ValueError for a JSON that is not panoptic or leads out of `pngs` and `images`, for a class list in `out`
    that differs, for segments that the JSON does not know, and where `out` would be written over what is read;
    FileNotFoundError for a file that is not there. Names are checked before anything is written.
    """
    content = read_panoptic(annotations)
    _check_class_list(out / CLASS_LIST, content.classes)
    names = [entry.image for entry in content.images]
    sources = _files(images, names, annotations, "--images holds the images")
    masks = _files(pngs, [entry.png for entry in content.images], annotations, "--pngs holds the panoptic PNGs")
    endings = {source.suffix for source in sources}
    wanted = [PurePosixPath(name).stem for name in names]
    stems = distinct_stems(wanted, names, endings=(".png", *sorted(endings)))
    labels = [out / "labels" / split / f"{stem}.png" for stem in stems]
    copies = [out / "images" / split / f"{stem}{source.suffix}" for stem, source in zip(stems, sources, strict=True)]
    refuse_overwriting([out / CLASS_LIST, *labels, *copies], [annotations, *sources, *masks])
    write_class_list(out / CLASS_LIST, content.classes)
    for entry, source, mask, label, copy in zip(content.images, sources, masks, labels, copies, strict=True):
        write_labels(label, panoptic_to_labels(mask, entry.segments))
        with replacing(copy) as temporary:
            shutil.copyfile(source, temporary)
    return len(content.images)


def panoptic_to_labels(path: Path, segments: dict[int, int]) -> np.ndarray:
    """Return the classes from 0, 255 where nothing is labelled, (H, W) uint8; `segments` is segment id -> class."""
    label_HW, strange = codes_to_labels(read_colours(path), RADIX, {**segments, 0: IGNORED})
    if strange:
        unknown = [str(number) for number in sorted(strange)]
        raise ValueError(f"{path}: holds segments that the JSON does not list: {some(unknown)}.")
    return label_HW


def _files(folder: Path, names: Sequence[str], source: Path, holds: str) -> list[Path]:
    """Return the files that `source` names in `folder`. Raises ValueError for others, FileNotFoundError for none."""
    paths = [inside(folder, name, source=source, links=True) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{folder / missing[0]}: not there, though {source.name} names it; {holds}"
            f"{nearest(missing, files_below(folder))}."
        )
    return paths


def _check_class_list(path: Path, classes: Classes) -> None:
    if path.is_file() and read_class_list(path) != classes:
        raise ValueError(f"{path}: lists other classes than this JSON; the splits of a set share one list.")
