"""PASCAL VOC's detection annotations: an XML file per image, boxes by their corner pixels, counted from 1.

`Annotations/*.xml`, `JPEGImages/`, and `ImageSets/Main/{train,val,test}.txt` with a name a line (VOC2012 devkit); or,
as Roboflow exports it, `train/`, `valid/` and `test/` with XML files beside the images.

A box from xmin to xmax covers both pixels: x = xmin - 1 and width = xmax - xmin + 1, as detectron2 reads it. Tools that
write corners counted from 0 as they are want `zero_based`: x = xmin, width = xmax - xmin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conversion.dataset import MISSING, Box, DataSet, Instance, Picture, parse_number, size_of
from conversion.image_files import ImagesByStem
from detection.data.coco_fields import shown
from detection.data.defects import Tally, some
from files.parsing import read_text
from files.xml_tree import Element, read_children

Difficult = Literal["crowd", "keep", "drop"]
LAYOUT = (
    "A VOC data set has Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val}.txt, or train/ and valid/ with "
    "XML files beside the images."
)
SPLITS = ("train", "val", "test")
FOLDERS = ("train", "valid", "val", "test")  # of Roboflow's form
UNKNOWN = "objects of classes that --names does not list, left out"
TREATED = {
    "crowd": "objects marked difficult, kept as crowds: not trained on, and detections on them do not count",
    "keep": "objects marked difficult, kept as any other",
    "drop": "objects marked difficult, left out",
}


@dataclass(frozen=True, kw_only=True)
class VocRules:
    """How what VOC leaves open is read."""

    difficult: Difficult = "crowd"
    """What becomes of objects marked difficult; VOC's own evaluation ignores them, as COCO's does crowds."""
    zero_based: bool = False
    """Corners are counted from 0 and the last is not covered."""
    names: tuple[str, ...] = ()
    """Classes in their order; those that the files have, sorted, unless given."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    xmls: tuple[Path, ...]
    images: ImagesByStem
    folder: Path


def read_voc(data: Path, rules: VocRules) -> DataSet:
    """Return the VOC data set of a folder.

    Raises FileNotFoundError for another layout, and ValueError, also while its pictures are read, that names the file,
    the line and the value for what is no annotation.
    """
    tally = Tally()
    splits = _devkit(data, tally) if (data / "Annotations").is_dir() else _folders(data)
    names = rules.names or _all_names(splits)
    if not names:
        raise ValueError(f"{data}: none of its annotation files has an object; the classes are not known.")
    pictures = {name: _pictures(split, names, rules, tally) for name, split in splits.items()}
    return DataSet(names=names, splits=pictures, tally=tally)


def _devkit(data: Path, tally: Tally) -> dict[str, _Split]:
    lists, images = data / "ImageSets" / "Main", ImagesByStem(data / "JPEGImages")
    there = {path.stem: path for path in sorted((data / "Annotations").glob("*.xml"))}
    wanted = [name for name in SPLITS if (lists / f"{name}.txt").is_file()]
    if not wanted:
        whole = "trainval" if (lists / "trainval.txt").is_file() else None
        stems = {"train": _listed(lists / "trainval.txt", there, tally) if whole else list(there)}
    else:
        stems = {name: _listed(lists / f"{name}.txt", there, tally) for name in wanted}
    for stem in sorted(there.keys() - {stem for listed in stems.values() for stem in listed}):
        tally.add("annotation files that no list of ImageSets/Main names, left out", f"{stem}.xml")
    return {
        name: _Split(xmls=tuple(there[stem] for stem in listed), images=images, folder=data / "JPEGImages")
        for name, listed in stems.items()
    }


def _listed(path: Path, there: dict[str, Path], tally: Tally) -> list[str]:
    found: dict[str, None] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        stem = line.split()[0] if line.strip() else ""
        if stem and stem not in there:
            tally.add("images of a list without an annotation file, left out", f"{path.name}, line {number}: {stem}")
        elif stem in found:
            tally.add("names that a list has twice, taken once", f"{path.name}, line {number}: {stem}")
        elif stem:
            found[stem] = None
    return list(found)


def _folders(data: Path) -> dict[str, _Split]:
    found = {name: tuple(sorted((data / name).glob("*.xml"))) for name in FOLDERS if (data / name).is_dir()}
    if not any(found.values()):
        holds = some(sorted(path.name for path in data.iterdir())) if data.is_dir() else "nothing: no such folder"
        raise FileNotFoundError(f"{data}: holds {holds or 'nothing'}. {LAYOUT}")
    return {
        name: _Split(xmls=xmls, images=ImagesByStem(data / name), folder=data / name)
        for name, xmls in found.items()
        if xmls
    }


def _all_names(splits: dict[str, _Split]) -> tuple[str, ...]:
    """Return the classes that the files have, sorted: the same whatever the order of files."""
    names = set()
    for split in splits.values():
        for path in split.xmls:
            names |= {_name(node, path) for node in read_children(path, root="annotation") if node.tag == "object"}
    return tuple(sorted(names))


def _pictures(split: _Split, names: tuple[str, ...], rules: VocRules, tally: Tally) -> Iterator[Picture]:
    owners: dict[Path, Path] = {}
    for path in split.xmls:
        nodes = list(read_children(path, root="annotation"))
        text = {node.tag: node.text for node in nodes}
        image = split.images.find(path.stem, name=text.get("filename", ""))
        if image is None:
            tally.add(MISSING, f"{path.name}: {text.get('filename') or 'no filename'}")
            continue
        if image in owners:
            what = "annotation files of an image that another file is of too, left out"
            tally.add(what, f"{path.name}: {image.name}, as {owners[image].name}")
            continue
        owners[image] = path
        name = image.relative_to(split.folder).as_posix()
        size = _size(nodes, path) or size_of(image, tally)
        if size is None:
            continue
        found = [_instance(node, names, rules, path, tally) for node in nodes if node.tag == "object"]
        instances = [instance for instance in found if instance is not None]
        if not found:
            tally.add("annotation files without an object, their images kept", path.name)
        yield Picture(path=image, name=name, size=size, instances=instances, source=str(path))


def _size(nodes: list[Element], path: Path) -> tuple[int, int] | None:
    """Return the stated width and height; None where one of them is missing or 0."""
    size = next((node for node in nodes if node.tag == "size"), None)
    sides = [size.child(tag) for tag in ("width", "height")] if size is not None else []
    width, height = (number_of(node, path, whole=True) if node is not None else 0 for node in (sides or [None, None]))
    return (int(width), int(height)) if width > 0 and height > 0 else None


def _instance(node: Element, names: tuple[str, ...], rules: VocRules, path: Path, tally: Tally) -> Instance | None:
    name = _name(node, path)
    where = f"{path.name}, line {node.line}"
    if name not in names:
        tally.add(UNKNOWN, f"{where}: {name}")
        return None
    box = _box(node, path, zero_based=rules.zero_based)
    hard = node.child("difficult")
    difficult = hard is not None and hard.text not in ("", "0")
    if difficult and hard is not None and hard.text != "1":
        raise ValueError(f"{path}, line {hard.line}: `difficult` is {shown(hard.text)}; it is 0 or 1.")
    if difficult:
        tally.add(TREATED[rules.difficult], where)
    for child in node.children:
        if child.tag not in ("name", "bndbox", "difficult"):
            tally.add(f"`{child.tag}` of objects, left out", where)
    if difficult and rules.difficult == "drop":
        return None
    return Instance(label=names.index(name), box=box, crowd=difficult and rules.difficult == "crowd")


def _name(node: Element, path: Path) -> str:
    name = node.child("name")
    if name is None or not name.text:
        raise ValueError(f"{path}, line {node.line}: an object without a `name`, its class.")
    return name.text


def _box(node: Element, path: Path, *, zero_based: bool) -> Box:
    box = node.child("bndbox")
    corners = [box.child(tag) if box is not None else None for tag in ("xmin", "ymin", "xmax", "ymax")]
    found = [number_of(corner, path) for corner in corners if corner is not None]
    if len(found) != 4:
        raise ValueError(f"{path}, line {node.line}: an object without a `bndbox` of xmin, ymin, xmax and ymax.")
    left, top, right, bottom = found
    first = 0 if zero_based else 1
    return left - first, top - first, right - left + first, bottom - top + first


def number_of(node: Element, path: Path, *, whole: bool = False) -> float:
    """Return the number in an element. Raises ValueError that names the file, the line and the value."""
    return parse_number(node.text, f"{path}, line {node.line}: `{node.tag}`", int if whole else float)
