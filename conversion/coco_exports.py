"""COCO annotations as Roboflow and CVAT export them, whose folders and classes are not laid out as COCO's own.

Roboflow: `train/`, `valid/` and `test/`, each with `_annotations.coco.json` beside its images, and a class 0 that no
object has, the data set's name. CVAT: `annotations/instances_<subset>.json` and `images/<subset>/` or `images/`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.dataset import MISSING, DataSet, Instance, Picture, size_of
from detection.data.coco_fields import field, is_id, is_number, name_of, shown
from detection.data.defects import Tally, some
from files.naming import inside
from files.parsing import read_json

ROBOFLOW = "_annotations.coco.json"
LAYOUT = f"Looked for <split>/{ROBOFLOW} (Roboflow) and annotations/instances_<split>.json (CVAT, COCO)."
IMAGE_FIELDS = {"id", "file_name", "width", "height"}
ANNOTATION_FIELDS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    folders: tuple[Path, ...]
    """Where the images may lie."""
    content: dict[str, Any]
    names: dict[Any, str]
    """Of the categories, by their ids."""


def read_coco_export(data: Path) -> DataSet:
    """Return the data set of a folder; its annotations are held in memory, its images are not.

    Raises FileNotFoundError for another layout, and ValueError, also while its pictures are read, that names the file
    and the record.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder. {LAYOUT}")
    found = {split: _read(path, folders) for split, (path, folders) in _files(data).items()}
    if not found:
        raise FileNotFoundError(f"{data}: holds {some(sorted(path.name for path in data.iterdir()))}. {LAYOUT}")
    tally = Tally()
    names = _classes(list(found.values()), tally)
    return DataSet(
        names=names, splits={split: _pictures(file, names, tally) for split, file in found.items()}, tally=tally
    )


def _files(data: Path) -> dict[str, tuple[Path, tuple[Path, ...]]]:
    found: dict[str, tuple[Path, tuple[Path, ...]]] = {}
    for path in sorted(data.glob(f"*/{ROBOFLOW}")):
        found[path.parent.name] = path, (path.parent,)
    for path in sorted((data / "annotations").glob("instances_*.json")):
        split = path.stem.removeprefix("instances_")
        found[split] = path, tuple(data / folder for folder in (f"images/{split}", "images", split))
    return found


def _read(path: Path, folders: tuple[Path, ...]) -> _File:
    content = read_json(path)
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path}: not in COCO's format: no list {key!r} at the top level.")
    names: dict[Any, str] = {}
    for category in content["categories"]:
        number, name = field(category, "id", path, "category"), field(category, "name", path, "category")
        if not is_id(number) or not is_id(name) or number in names or str(name) in names.values():
            raise ValueError(
                f"{path}: the category {shown(category)}; ids are whole numbers or text, and no id and no name may "
                "come twice."
            )
        names[number] = str(name)
    return _File(path=path, folders=folders, content=content, names=names)


def _classes(files: list[_File], tally: Tally) -> tuple[str, ...]:
    """Return the classes of all files, in the order of their ids; a class that is only the name of a group is none."""
    used = {file.names.get(_id(raw, "category_id", file)) for file in files for raw in file.content["annotations"]}
    groups = {
        str(category.get("supercategory"))
        for file in files
        for category in file.content["categories"]
        if category.get("supercategory") != category["name"]
    }
    found: dict[str, None] = {}
    for file in files:
        for number in sorted(file.names, key=lambda number: (str(type(number)), number)):
            found[file.names[number]] = None
    for name in list(found):
        if name in groups and name not in used and len(found) > 1:
            tally.add("classes without an object that are the group of others (Roboflow's first), left out", name)
            del found[name]
    if not found:
        raise ValueError(f"{files[0].path}: `categories` is empty; list an id and a name for each class of object.")
    return tuple(found)


def _pictures(file: _File, names: tuple[str, ...], tally: Tally) -> Iterator[Picture]:
    label = {name: number for number, name in enumerate(names)}
    of_image: dict[Any, list[dict[str, Any]]] = {_id(image, "id", file): [] for image in file.content["images"]}
    for raw in file.content["annotations"]:
        if (number := _id(raw, "image_id", file)) in of_image:
            of_image[number].append(raw)
        else:
            tally.add("annotations of images that the file does not list, left out", f"{file.path}: {name_of(raw)}")
    _count_fields(file, tally)
    if len(of_image) < len(file.content["images"]):
        twice = Counter(image["id"] for image in file.content["images"]).most_common(1)[0][0]
        raise ValueError(f"{file.path}: `images` lists the id {shown(twice)} more than once; give each its own.")
    for image in file.content["images"]:
        name = field(image, "file_name", file.path, "image")
        places = [inside(folder, name, source=file.path, links=True) for folder in file.folders]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            tally.add(MISSING, f"{file.path.name}: {name[:100]}")
            continue
        sides = image.get("width"), image.get("height")
        stated = all(type(side) is int and side > 0 for side in sides)
        size = (sides[0], sides[1]) if stated else size_of(path, tally)
        if size is not None:
            found = [_instance(raw, file, label) for raw in of_image[image["id"]]]
            yield Picture(path=path, name=name, size=size, instances=found, source=f"{file.path}, image {image['id']}")


def _instance(raw: dict[str, Any], file: _File, label: dict[str, int]) -> Instance:
    where = f"{file.path}: {name_of(raw)}"
    number = _id(raw, "category_id", file)
    if number not in file.names:
        raise ValueError(f"{where} has category_id {shown(number)}; `categories` lists {some(map(shown, file.names))}.")
    box, crowd = field(raw, "bbox", file.path, "annotation"), raw.get("iscrowd", 0)
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"{where} has bbox {shown(box)}; it must be four numbers x, y, width, height.")
    if crowd not in (0, 1):
        raise ValueError(f"{where} has iscrowd {shown(crowd)}; it must be 0 or 1.")
    return Instance(
        label=label[file.names[number]],
        box=(box[0], box[1], box[2], box[3]),
        segmentation=raw.get("segmentation") or None,
        crowd=bool(crowd),
        area=raw["area"] if is_number(raw.get("area")) else None,
    )


def _count_fields(file: _File, tally: Tally) -> None:
    for kind, key, known in (("images", "images", IMAGE_FIELDS), ("annotations", "annotations", ANNOTATION_FIELDS)):
        for record in file.content[key]:
            for name in sorted(record.keys() - known):
                tally.add(f"`{name[:40]}` of {kind}, left out", f"{file.path.name}: {shown(record.get('id'))}")


def _id(record: Any, key: str, file: _File) -> Any:
    value = field(record, key, file.path, "annotation" if key != "id" else "image")
    if not is_id(value):
        raise ValueError(f"{file.path}: a record with {key} {shown(value)}; it must be a whole number or text.")
    return value
