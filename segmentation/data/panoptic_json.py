"""COCO's panoptic JSON, checked: every field that is used has its type, and every id leads to one thing.

    categories   [{id, name, color (red, green, blue; all or none)}]
    images       [{id, file_name}]
    annotations  [{image_id, file_name (of the PNG), segments_info: [{id, category_id}]}]

Other fields are not read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.parsing import read_json
from segmentation.data.classes import Classes, Colour
from segmentation.data.labels import MOST_CLASSES
from segmentation.data.pairs import some

LAST_SEGMENT = 2**24 - 1  # three bytes of colour


@dataclass(frozen=True)
class PanopticImage:
    """One image and its segments."""

    image: str
    """Name of the image file, as the JSON gives it."""
    png: str
    """Name of its panoptic PNG."""
    segments: dict[int, int]
    """Segment id -> class from 0."""


@dataclass(frozen=True)
class Panoptic:
    """What a panoptic JSON says; the classes are its categories in their order."""

    classes: Classes
    images: tuple[PanopticImage, ...]


def read_panoptic(path: Path) -> Panoptic:
    """Return the content of the JSON.

    Raises ValueError that names the file and the record for a field that is missing, of another type or out of range,
    for ids that come twice and ids that lead nowhere.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: no panoptic annotations: a {type(content).__name__}, no object.")
    entries = _records(content, "annotations", path) if content.get("annotations") else []
    if not entries or "segments_info" not in entries[0] or "categories" not in content:
        raise ValueError(f"{path}: no panoptic annotations (no segments_info); instances_*.json are for detection.")
    categories = _records(content, "categories", path)
    classes = _classes(categories, path)
    class_of = _distinct(
        [(_whole(record, "id", _at(path, "categories", i)), i) for i, record in enumerate(categories)],
        f"{path}: categories",
    )
    image_names = _distinct(
        [
            (_id(record, _at(path, "images", i), "id"), _name(record, "file_name", _at(path, "images", i)))
            for i, record in enumerate(_records(content, "images", path))
        ],
        f"{path}: images",
    )
    found: dict[str, PanopticImage] = {}
    for number, entry in enumerate(entries):
        where = _at(path, "annotations", number)
        image_id = _id(entry, where, "image_id")
        if image_id not in image_names:
            raise ValueError(f"{where}: image_id {image_id!r:.100} is the id of no image.")
        name = image_names[image_id]
        if name in found:
            raise ValueError(f"{where}: a second annotation of image {name!r}; keep one.")
        found[name] = PanopticImage(name, _name(entry, "file_name", where), _segments(entry, class_of, where))
    return Panoptic(classes, tuple(found.values()))


def _classes(categories: list[dict[str, Any]], path: Path) -> Classes:
    if len(categories) > MOST_CLASSES:
        raise ValueError(f"{path}: {len(categories)} categories; at most {MOST_CLASSES} classes fit 8 bits.")
    names = []
    for number, record in enumerate(categories):
        value = record.get("name")
        name = " ".join(str(value).split()) if isinstance(value, str | int) else ""  # one line of the class list
        if not name:
            raise ValueError(f"{_at(path, 'categories', number)}: name is {value!r:.100}; it must be text.")
        names.append(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: categories: {some(twice)} more than once; give each a name of its own.")
    if not all(record.get("color") for record in categories):
        return Classes(tuple(names), None)
    return Classes(
        tuple(names), tuple(_colour(record, _at(path, "categories", i)) for i, record in enumerate(categories))
    )


def _colour(record: dict[str, Any], where: str) -> Colour:
    value = record["color"]
    parts = value if isinstance(value, list) and len(value) == 3 else []
    red, green, blue = ([*parts, None, None, None])[:3]
    if not all(isinstance(part, int) and 0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"{where}: color is {value!r:.100}; it must be three numbers from 0 to 255.")
    return red, green, blue


def _segments(entry: dict[str, Any], class_of: dict[int, int], where: str) -> dict[int, int]:
    pairs = []
    for number, segment in enumerate(_records(entry, "segments_info", where)):
        here = f"{where}: segments_info[{number}]"
        identity, category = _whole(segment, "id", here), _whole(segment, "category_id", here)
        if not 0 <= identity <= LAST_SEGMENT:
            raise ValueError(f"{here}: id is {identity!r:.100}; it must be from 0 to {LAST_SEGMENT:,}.")
        if category not in class_of:
            raise ValueError(f"{here}: category_id {category!r:.100} is the id of no category.")
        pairs.append((identity, class_of[category]))
    return _distinct(pairs, f"{where}: segments_info")


def _records(parent: dict[str, Any], key: str, where: Path | str) -> list[dict[str, Any]]:
    value = parent.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{where}: {key} is {value!r:.100}; it must be a list.")
    for number, record in enumerate(value):
        if not isinstance(record, dict):
            raise ValueError(f"{where}: {key}[{number}] is {record!r:.100}; it must be an object.")
    return value


def _name(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{where}: {key} is {value!r:.100}; it must be the name of a file.")
    return value


def _id(record: dict[str, Any], where: str, key: str) -> int | str:
    """Return an image's id: a number or text."""
    value = record.get(key)
    return value if isinstance(value, str) else _whole(record, key, where)


def _whole(record: dict[str, Any], key: str, where: str) -> int:
    """Return a whole number, as such, as text of digits or as 5.0."""
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{where}: {key} is {value!r:.100}; it must be a whole number.")
    return value


def _distinct(pairs: list[tuple[Any, Any]], where: str) -> dict[Any, Any]:
    """Return the pairs as a dict. Raises ValueError for a key with two values."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"{where}: id {key!r:.100} comes twice; keep one.")
    return found


def _at(path: Path, key: str, number: int) -> str:
    return f"{path}: {key}[{number}]"
