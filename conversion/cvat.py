"""CVAT's own XML, "CVAT for images 1.1": boxes, polygons and masks, of images in one or more subsets.

Coordinates are pixels counted from 0 at the upper left corner. A mask's `rle` are the lengths of runs by turns outside
and inside, row by row of the rectangle `left, top, width, height` (docs.cvat.ai, XML annotation format).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle

from conversion.dataset import MISSING, Box, DataSet, Instance, Picture, extent, parse_number, size_of
from detection.data.coco_fields import shown
from detection.data.defects import Tally, some
from engine.images.file import most_megapixels, too_large
from files.naming import inside
from files.xml_tree import Element, read_children

SUBSET = "train"  # of images that are in none
LAYOUT = "Export the task as `CVAT for images 1.1`, with images, and give the unpacked folder."
"""What to do about another file."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    file: Path
    images: Path
    names: tuple[str, ...]
    tally: Tally


def read_cvat(data: Path, *, images: Path | None = None) -> DataSet:
    """Return the data set of a folder with annotations.xml, or of the XML file itself.

    Images lie in `images` or, unless it is given, in images/ beside the XML or beside it. Raises FileNotFoundError and
    ValueError, also while its pictures are read, that name the file, the line and the value.
    """
    file = data / "annotations.xml" if data.is_dir() else data
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file. {LAYOUT}")
    beside = file.parent / "images"
    images = images or (beside if beside.is_dir() else file.parent)
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; --images names that of the images.")
    names, subsets = _survey(file)
    source = _Source(file=file, images=images, names=names, tally=Tally())
    splits = {subset: _pictures(source, subset) for subset in subsets}
    return DataSet(names=names, splits=splits, tally=source.tally)


def _survey(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes and the subsets. Raises ValueError for another kind of CVAT's files."""
    names: dict[str, None] = {}
    used: dict[str, None] = {}
    subsets: dict[str, None] = {}
    for node in read_children(file, root="annotations"):
        if node.tag == "track":
            raise ValueError(f"{file}, line {node.line}: a track, of `CVAT for video`. {LAYOUT}")
        if node.tag == "meta":
            labels = [label for label in node.below("label") if label.child("parent") is None]  # else of a skeleton
            names |= {name.text: None for label in labels if (name := label.child("name")) is not None and name.text}
        if node.tag == "image":
            subsets[node.attributes.get("subset") or SUBSET] = None
            used |= {shape.attributes["label"]: None for shape in node.children if shape.attributes.get("label")}
    if not subsets:
        raise ValueError(f"{file}: has no image. {LAYOUT}")
    found = tuple(names) or tuple(sorted(used))
    if not found:
        raise ValueError(f"{file}: has neither labels nor a shape with one; there is nothing to detect. {LAYOUT}")
    return found, tuple(sorted(subsets))


def _pictures(source: _Source, subset: str) -> Iterator[Picture]:
    for node in read_children(source.file, root="annotations"):
        if node.tag != "image" or (node.attributes.get("subset") or SUBSET) != subset:
            continue
        where = f"{source.file}, line {node.line}"
        name = _attribute(node, "name", where).replace("\\", "/")
        places = [inside(folder, name, source=source.file, links=True) for folder in _folders(source.images, subset)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            source.tally.add(MISSING, f"line {node.line}: {name}")
            continue
        size = _size(node, where) or size_of(path, source.tally)
        if size is None:
            continue
        if not node.children:
            source.tally.add("images without a shape, kept without objects", name)
        instances = [found for shape in node.children if (found := _instance(shape, size, source)) is not None]
        yield Picture(path=path, name=name, size=size, instances=instances, source=where)


def _folders(images: Path, subset: str) -> tuple[Path, ...]:
    return images, images / subset, images / "default"


def _size(node: Element, where: str) -> tuple[int, int] | None:
    sides = [node.attributes.get(key) for key in ("width", "height")]
    if not all(sides):
        return None
    width, height = (
        int(parse_number(str(side), f"{where}: `{key}`", int))
        for key, side in zip(("width", "height"), sides, strict=True)
    )
    return (width, height) if width > 0 and height > 0 else None


def _instance(shape: Element, size: tuple[int, int], source: _Source) -> Instance | None:
    where = f"{source.file}, line {shape.line}"
    example = f"line {shape.line}"
    if shape.tag not in SHAPES:
        source.tally.add(f"`{shape.tag}`, neither box, polygon nor mask, left out", example)
        return None
    label = _attribute(shape, "label", where)
    if label not in source.names:
        raise ValueError(f"{where}: label {shown(label)}; the file lists {some(map(shown, source.names))}.")
    for child in shape.children:
        source.tally.add(f"`{child.tag}`s of shapes, left out", f"{example}: {child.attributes.get('name', '')}")
    for key, what in (
        ("occluded", "`occluded` of shapes, left out"),
        ("group_id", "`group_id` of shapes, not followed: each shape is an object of its own"),
    ):
        if shape.attributes.get(key, "0") not in ("0", ""):
            source.tally.add(what, example)
    box, segmentation = SHAPES[shape.tag](shape, size, where, source.tally)
    return Instance(label=source.names.index(label), box=box, segmentation=segmentation)


Found = tuple[Box, list[list[float]] | dict[str, Any] | None]


def _box(shape: Element, _: tuple[int, int], where: str, tally: Tally) -> Found:
    left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = _number(shape, "rotation", where) if "rotation" in shape.attributes else 0.0
    if angle % 360:
        tally.add("rotated boxes, replaced by the upright box around them", f"line {shape.line}: {angle:g} degrees")
        turn = math.radians(angle)
        width = abs((right - left) * math.cos(turn)) + abs((bottom - top) * math.sin(turn))
        height = abs((right - left) * math.sin(turn)) + abs((bottom - top) * math.cos(turn))
        return ((left + right - width) / 2, (top + bottom - height) / 2, width, height), None
    return (left, top, right - left, bottom - top), None


def _polygon(shape: Element, _: tuple[int, int], where: str, __: Tally) -> Found:
    pairs = [pair.split(",") for pair in _attribute(shape, "points", where).split(";")]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{where}: a polygon with the points {shown(shape.attributes['points'])}; they are three or more, as "
            "`x,y;x,y;x,y`."
        )
    polygon = [parse_number(value, f"{where}: a coordinate") for pair in pairs for value in pair]
    return extent([polygon]), [polygon]


def _mask(shape: Element, size: tuple[int, int], where: str, _: Tally) -> Found:
    left, top, width, height = (int(_number(shape, key, where, int)) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[0] or top + height > size[1]:
        raise ValueError(
            f"{where}: a mask of {width}x{height} pixels at {left}, {top}; the image has {size[0]}x{size[1]}. "
            "Export the task again."
        )
    if size[0] * size[1] > (most := most_megapixels()) * 10**6:
        raise ValueError(f"{where}: a mask in an image of {size[0]}x{size[1]} pixels: {too_large(most)}.")
    words = _attribute(shape, "rle", where).split(",")
    run_R = [int(parse_number(word.strip(), f"{where}: a run of `rle`", int)) for word in words]
    if min(run_R) < 0 or sum(run_R) != width * height:
        raise ValueError(
            f"{where}: a mask with runs of {sum(run_R):,} pixels (the shortest {min(run_R)}); its rectangle of "
            f"{width}x{height} has {width * height:,}. Export the task again."
        )
    inside_R = np.arange(len(run_R)) % 2 == 1
    whole_HW = np.zeros((size[1], size[0]), np.uint8, order="F")
    whole_HW[top : top + height, left : left + width] = np.repeat(inside_R, run_R).reshape(height, width)
    runs = rle.encode(whole_HW)
    return tuple(rle.toBbox(runs).tolist()), {"size": [size[1], size[0]], "counts": runs["counts"].decode("ascii")}


SHAPES: dict[str, Callable[[Element, tuple[int, int], str, Tally], Found]] = {
    "box": _box,
    "polygon": _polygon,
    "mask": _mask,
}


def _number(node: Element, key: str, where: str, kind: Callable[[str], float] = float) -> float:
    return parse_number(_attribute(node, key, where), f"{where}: `{key}`", kind)


def _attribute(node: Element, key: str, where: str) -> str:
    if not node.attributes.get(key):
        raise ValueError(f"{where}: <{node.tag}> without `{key}`.")
    return node.attributes[key]
