"""COCO annotation files: read, checked and cleaned once, for training and for scoring alike.

Errors name the file and the record. What is wrong in single annotations is dropped or clipped, counted, and
said in `notes`.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycocotools.mask as rle
from detectron2.structures import BoxMode

ROUNDING = 1.0  # pixels by which COCO's own boxes may pass the edge of their image
MOST_NAMED = 3  # examples in a message


@dataclass(frozen=True)
class Category:
    """A category as its file numbers it."""

    id: int
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoSplit:
    """One checked annotation file and its images."""

    name: str
    annotations: Path
    categories: tuple[Category, ...]
    """By ascending id; a category's index here is its class in the model."""
    records: tuple[dict[str, Any], ...]
    """detectron2's dataset dicts of all images, by ascending id, with crowds; `name` as in the file."""
    ground_truth: dict[str, Any]
    """The cleaned content in COCO's own form, annotations numbered from 1 (its code ignores 0)."""
    masks: bool
    """Every annotation has a segmentation."""
    notes: tuple[str, ...]
    """What was dropped or clipped."""


class _Tally:
    """Counts what is wrong with single annotations and keeps a few examples."""

    def __init__(self) -> None:
        self._seen: dict[str, list[str]] = {}

    def add(self, what: str, example: str) -> None:
        self._seen.setdefault(what, []).append(example)

    def notes(self, split: str) -> list[str]:
        return [f"{split}: {what}: {len(found)} ({some(found)})" for what, found in self._seen.items()]


def some(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    listed = list(names)
    rest = f", and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return ", ".join(listed[:MOST_NAMED]) + rest


def annotation_file(data: Path, split: str, explicit: str | None) -> Path:
    """Return the path of a split's annotations. Raises FileNotFoundError that says what is there instead."""
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; --data is the folder that holds {split}/ and annotations/.")
    path = Path(explicit) if explicit else data / "annotations" / f"instances_{split}.json"
    if path.is_file():
        return path
    there = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
    found = f"{path.parent} holds {some(there)}" if there else f"{path.parent} holds no .json file"
    raise FileNotFoundError(
        f"{path}: no such annotation file; {found}, {data} holds {_listing(data)}. "
        "Name the splits with --train-split and --val-split, or the files with --train-json and --val-json."
    )


def read_coco(path: Path, *, data: Path, split: str) -> CocoSplit:
    """Return the annotations in `path` with images in data/split, or in data or beside the file if not there.

    Raises FileNotFoundError for images that are not there, and ValueError for what is not COCO's format, for
    an unknown category, and for annotations of which only some have a segmentation.
    """
    content = _parse(path)
    categories = _categories(content["categories"], path)
    tally = _Tally()
    images = _images(content["images"], path)
    folder = _image_folder(list(images.values()), path=path, data=data, split=split)
    of_image: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    known = {category.id for category in categories}
    total = 0
    for raw in content["annotations"]:
        image = images.get(_field(raw, "image_id", path, "annotation"))
        if image is None:
            tally.add("annotations of images that the file does not list, dropped", _name(raw))
            continue
        if _field(raw, "category_id", path, "annotation") not in known:
            raise ValueError(
                f"{path}: {_name(raw)} has category_id {raw['category_id']}, which `categories` does not "
                f"list; it lists {some(str(category.id) for category in categories)}."
            )
        cleaned = _clean(raw, image, path=path, tally=tally)
        if cleaned is not None:
            total += 1
            of_image[raw["image_id"]].append({**cleaned, "id": total})
    if not total:
        raise ValueError(f"{path}: holds {len(images)} images and no annotation that can be used.")
    kept = [annotation for annotations in of_image.values() for annotation in annotations]
    return CocoSplit(
        name=split,
        annotations=path,
        categories=categories,
        records=_records(images, of_image, folder=folder, categories=categories),
        ground_truth={
            "info": {},
            "images": list(images.values()),
            "categories": [{"id": category.id, "name": category.name} for category in categories],
            "annotations": kept,
        },
        masks=_all_or_no_masks(kept, path),
        notes=tuple(tally.notes(split)),
    )


def check_same_categories(train: CocoSplit, val: CocoSplit) -> None:
    """Raise ValueError where the two files number or name their categories differently."""
    if train.categories != val.categories:
        only_train = [f"{c.id} {c.name}" for c in train.categories if c not in val.categories]
        only_val = [f"{c.id} {c.name}" for c in val.categories if c not in train.categories]
        raise ValueError(
            f"the categories of {val.annotations} differ from those of {train.annotations}: "
            f"only in training {some(only_train) or 'none'}; only in validation {some(only_val) or 'none'}. "
            "Both files must list the same ids and names."
        )


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}); the file has {path.stat().st_size:,} bytes and may be truncated."
        ) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path}: not in COCO's format: no list {key!r} at the top level.")
    return content


def _categories(raw: list[dict[str, Any]], path: Path) -> tuple[Category, ...]:
    found = [Category(_field(c, "id", path, "category"), str(_field(c, "name", path, "category"))) for c in raw]
    if len({category.id for category in found}) < len(found) or not found:
        raise ValueError(f"{path}: `categories` is empty or lists an id twice ({some(str(c.id) for c in found)}).")
    return tuple(sorted(found, key=lambda category: category.id))


def _images(raw: list[dict[str, Any]], path: Path) -> dict[Any, dict[str, Any]]:
    """Return the image records by ascending id, which is the order that detectron2 gives them."""
    images: dict[Any, dict[str, Any]] = {}
    for image in raw:
        record = {key: _field(image, key, path, "image") for key in ("id", "file_name", "height", "width")}
        if record["id"] in images:
            raise ValueError(f"{path}: two images have the id {record['id']}.")
        images[record["id"]] = record
    if not images:
        raise ValueError(f"{path}: lists no image.")
    if len({type(image_id) for image_id in images}) > 1:
        raise ValueError(f"{path}: some image ids are numbers and some are text; make them all of one kind.")
    return dict(sorted(images.items()))


def _image_folder(images: list[dict[str, Any]], *, path: Path, data: Path, split: str) -> Path:
    """Return the first folder that has the first image; raises FileNotFoundError where images are missing."""
    candidates = [data / split, data, path.parent]
    first = images[0]["file_name"]
    folder = next((c for c in candidates if (c / first).is_file()), data / split)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; looked for {first}, the first image of {path.name}, in "
            f"{', '.join(str(c) for c in candidates)}; {data} holds {_listing(data)}."
        )
    missing = [str(image["file_name"]) for image in images if not (folder / image["file_name"]).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: names {len(missing)} of {len(images)} images that are not in {folder}: {some(missing)}."
        )
    return folder


def _clean(raw: dict[str, Any], image: dict[str, Any], *, path: Path, tally: _Tally) -> dict[str, Any] | None:
    """Return the annotation as it will be used, or None where nothing of it can be."""
    example = f"{_name(raw)} of {image['file_name']}"
    box = _field(raw, "bbox", path, "annotation")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise ValueError(f"{path}: {example} has bbox {box}; it must be four numbers x, y, width, height.")
    x, y, width, height = (float(value) for value in box)
    if width <= 0 or height <= 0:
        tally.add("boxes of no size, dropped", f"{example}: {width:g}x{height:g}")
        return None
    left, right = max(x, 0.0), min(x + width, float(image["width"]))
    top, bottom = max(y, 0.0), min(y + height, float(image["height"]))
    if right <= left or bottom <= top:
        tally.add("boxes outside of their image, dropped", f"{example}: x {x:g}, y {y:g}")
        return None
    if max(left - x, x + width - right, top - y, y + height - bottom) > ROUNDING:
        tally.add("boxes partly outside of their image, clipped", example)
        x, y, width, height = left, top, right - left, bottom - top
    crowd = int(raw.get("iscrowd") or 0)
    cleaned = {"image_id": raw["image_id"], "category_id": raw["category_id"], "iscrowd": crowd}
    cleaned |= {"bbox": [x, y, width, height], "area": float(raw.get("area") or width * height)}
    segmentation = raw.get("segmentation")
    if not segmentation:
        return cleaned
    usable = _segmentation(segmentation, image, where=f"{path}: {example}")
    if not usable:
        tally.add("annotations without a polygon of 3 points or more, dropped", example)
        return None
    if isinstance(segmentation, list) and len(usable) < len(segmentation):
        tally.add("annotations that lost a polygon of fewer than 3 points", example)
    return {**cleaned, "segmentation": usable}


def _segmentation(raw: Any, image: dict[str, Any], *, where: str) -> Any:
    """Return the polygons of three points or more, or the run lengths in compressed form."""
    if isinstance(raw, list):
        if not all(isinstance(polygon, list) and all(map(_is_finite, polygon)) for polygon in raw):
            raise ValueError(f"{where} has a segmentation that is no list of polygons [[x, y, x, y, ...], ...].")
        return [polygon for polygon in raw if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not isinstance(raw, dict) or not {"size", "counts"} <= raw.keys():
        raise ValueError(f"{where} has a segmentation that is neither a list of polygons nor run lengths.")
    if list(raw["size"]) != [image["height"], image["width"]]:
        raise ValueError(
            f"{where} has run lengths for an image of {raw['size']} (height, width); "
            f"the image is {[image['height'], image['width']]}."
        )
    if isinstance(raw["counts"], str):
        return raw
    packed = rle.frPyObjects(raw, image["height"], image["width"])
    return {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}


def _records(
    images: dict[Any, dict[str, Any]],
    of_image: dict[Any, list[dict[str, Any]]],
    *,
    folder: Path,
    categories: tuple[Category, ...],
) -> tuple[dict[str, Any], ...]:
    """Return detectron2's dataset dicts, categories numbered from 0 without gaps."""
    index = {category.id: number for number, category in enumerate(categories)}
    records = []
    for image_id, image in images.items():
        objects = [
            {
                **{key: a[key] for key in ("iscrowd", "bbox", "segmentation") if key in a},
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": index[a["category_id"]],
            }
            for a in of_image[image_id]
        ]
        records.append(
            {
                "file_name": str(folder / image["file_name"]),
                "name": image["file_name"],
                "image_id": image_id,
                "height": image["height"],
                "width": image["width"],
                "annotations": objects,
            }
        )
    return tuple(records)


def _all_or_no_masks(annotations: list[dict[str, Any]], path: Path) -> bool:
    with_mask = sum("segmentation" in a for a in annotations)
    if with_mask not in (0, len(annotations)):
        raise ValueError(
            f"{path}: {with_mask} of {len(annotations)} annotations have a segmentation. Give all of "
            "them one to train masks, or remove `segmentation` from all to train boxes alone."
        )
    return with_mask > 0


def _field(record: Any, key: str, path: Path, kind: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{path}: an entry of kind {kind} has no {key!r}: {str(record)[:200]}")
    return record[key]


def _name(annotation: dict[str, Any]) -> str:
    return f"annotation {annotation.get('id', 'without id')}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _listing(folder: Path) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    return some(names) if names else "nothing"
