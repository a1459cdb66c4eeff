"""Reading of a COCO or LVIS annotation file: parsed, checked and cleaned in one pass.

Errors name the file and the record. What is wrong in single annotations is dropped or clipped, and counted.

LVIS v1 (arXiv 1908.03195) has no `iscrowd` and no `file_name`, which is taken from `coco_url` as its own code does, and
says per image which categories are known to be absent or are not annotated throughout.
"""

import gc
import json
import math
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from detection.run_lengths import checked_runs
from detection.store import FREQUENCIES, Arrays, Category, Defect, Store, packed_ids

ROUNDING = 1.0  # pixels by which COCO's own boxes may pass the edge of their image
MOST_NAMED = 3  # examples in a message


class _Tally:
    """Counts what is wrong with single annotations and keeps a few examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, example: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        examples = self._examples.setdefault(what, [])
        if len(examples) < MOST_NAMED:
            examples.append(example)

    def defects(self) -> tuple[Defect, ...]:
        return tuple(Defect(what, count, tuple(self._examples[what])) for what, count in self._counts.items())


def some(names: Iterable[str], total: int | None = None) -> str:
    """Return the first few names and how many more there are, of `total` where only examples are given."""
    listed = list(names)
    rest = (total or len(listed)) - min(len(listed), MOST_NAMED)
    return ", ".join(listed[:MOST_NAMED]) + (f", and {rest} more" if rest else "")


def read_file(path: Path) -> Store:
    """Return the cleaned content of an annotation file.

    Raises ValueError for what is not COCO's format, for ids that are listed twice or not at all, and for masks that do
    not fit their image.
    """
    with _no_collection():
        content = _parse(path)
        images = _images(content["images"], path)
        lvis = any("neg_category_ids" in image for image in images.values())
        categories = _categories(content["categories"], path, lvis=lvis)
        reader = _Reader(path, categories, lvis=lvis)
        of_image: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in images}
        for raw in content["annotations"]:
            image_id = _field(raw, "image_id", path, "annotation")
            if not isinstance(image_id, int | str) or image_id not in of_image:
                reader.tally.add("annotations of images that the file does not list, dropped", _name(raw))
            else:
                of_image[image_id].append(raw)
        for image_id, image in images.items():
            reader.add_image(image, of_image[image_id])
        return reader.store(images)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the collector of cyclic garbage, which would go through the parsed millions again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}); the file has {path.stat().st_size:,} bytes and may be truncated."
        ) from error
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            hint = ""
            if key == "annotations" and isinstance(content, dict):
                hint = " A split without annotations, such as COCO's test2017, can be neither trained nor scored on."
            raise ValueError(f"{path}: not in COCO's format: no list {key!r} at the top level.{hint}")
    return content


def _categories(raw: list[dict[str, Any]], path: Path, *, lvis: bool) -> tuple[Category, ...]:
    if not raw:
        raise ValueError(f"{path}: `categories` is empty; list an id and a name for each class of object.")
    found = [Category(_field(c, "id", path, "category"), str(_field(c, "name", path, "category"))) for c in raw]
    _check_ids([category.id for category in found], "categories", path)
    if lvis and any("frequency" in category for category in raw):
        found = [Category(c.id, c.name, _frequency(r, path)) for c, r in zip(found, raw, strict=True)]
    return tuple(sorted(found, key=lambda category: category.id))


def _frequency(category: dict[str, Any], path: Path) -> str:
    if category.get("frequency") not in FREQUENCIES:
        raise ValueError(
            f"{path}: category {category['id']!r} has frequency {category.get('frequency')!r}; in LVIS's format each "
            "category has 'r', 'c' or 'f' (rare, common, frequent), or none of them has a frequency."
        )
    return str(category["frequency"])


def _images(raw: list[dict[str, Any]], path: Path) -> dict[Any, dict[str, Any]]:
    """Return the image records by ascending id, which is the order that detectron2 gives them."""
    if not raw:
        raise ValueError(f"{path}: lists no image.")
    for image in raw:
        for key in ("id", "height", "width"):
            _field(image, key, path, "image")
        if not all(isinstance(image[key], int) and image[key] > 0 for key in ("height", "width")):
            raise ValueError(
                f"{path}: image {image['id']} has height {image['height']!r} and width {image['width']!r}; "
                "both must be whole numbers of pixels above 0."
            )
        if "file_name" not in image and "coco_url" in image:
            image["file_name"] = "/".join(str(image["coco_url"]).split("/")[-2:])
        _field(image, "file_name", path, "image")
    _check_ids([image["id"] for image in raw], "images", path)
    return {image["id"]: image for image in sorted(raw, key=lambda image: image["id"])}


def _check_ids(ids: list[Any], what: str, path: Path) -> None:
    """Raise ValueError for ids that are neither all whole numbers nor all text, or that occur twice."""
    for kind in (int, str):
        if all(isinstance(value, kind) and not isinstance(value, bool) for value in ids):
            break
    else:
        shown = some(sorted({f"{value!r}" for value in ids}))
        raise ValueError(f"{path}: ids of `{what}` must be all whole numbers or all text; it has {shown}.")
    if len(set(ids)) < len(ids):
        seen: set[Any] = set()
        twice = [str(value) for value in ids if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
        raise ValueError(f"{path}: `{what}` lists {len(twice)} ids more than once: {some(twice)}; give each its own.")


class _Reader:
    """Takes image after image into growing arrays."""

    def __init__(self, path: Path, categories: tuple[Category, ...], *, lvis: bool) -> None:
        self.path, self.categories, self.lvis, self.tally = path, categories, lvis, _Tally()
        self._class = {category.id: number for number, category in enumerate(categories)}
        self._annotation, self._polygon, self._point_at, self._run_at = (array("q", [0]) for _ in range(4))
        self._box, self._area, self._point = array("d"), array("d"), array("d")
        self._classes, self._crowd, self._run = array("i"), array("b"), bytearray()

    def add_image(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Take what can be used of an image's annotations."""
        for raw in annotations:
            self._add(raw, image)
        self._annotation.append(len(self._area))

    def store(self, images: dict[Any, dict[str, Any]]) -> Store:
        """Return everything taken. Raises ValueError where that is nothing."""
        if not len(self._area):
            raise ValueError(f"{self.path}: holds {len(images)} images and no annotation that can be used.")
        listed = list(images.values())
        negative_I, negative = _ragged([image.get("neg_category_ids", ()) for image in listed])
        partial_I, partial = _ragged([image.get("not_exhaustive_category_ids", ()) for image in listed])
        arrays = Arrays(
            image_id_I=packed_ids(list(images)),
            name_I=np.array([str(image["file_name"]).encode() for image in listed]),
            size_I2=np.array([[image["height"], image["width"]] for image in listed], np.int32),
            annotation_I=np.array(self._annotation),
            box_A4=np.array(self._box).reshape(-1, 4),
            area_A=np.array(self._area),
            class_A=np.array(self._classes),
            crowd_A=np.array(self._crowd).astype(bool),
            polygon_A=np.array(self._polygon),
            point_P=np.array(self._point_at),
            point=np.array(self._point),
            run_A=np.array(self._run_at),
            run=np.frombuffer(bytes(self._run), np.uint8),
            negative_I=negative_I,
            negative=negative,
            partial_I=partial_I,
            partial=partial,
        )
        return Store(self.categories, self.tally.defects(), arrays, lvis=self.lvis)

    def _add(self, raw: dict[str, Any], image: dict[str, Any]) -> None:
        category = _field(raw, "category_id", self.path, "annotation")
        number = self._class.get(category) if isinstance(category, int | str) else None
        if number is None:
            raise ValueError(
                f"{self.path}: {_name(raw)} has category_id {category!r}, which `categories` does not "
                f"list; it lists {some(repr(c.id) for c in self.categories)}."
            )
        box = self._clipped_box(raw, image)
        if box is None:
            return
        segmentation = raw.get("segmentation")
        if segmentation and not self._add_mask(segmentation, raw, image):
            return
        area = raw.get("area") or box[2] * box[3]
        if not _is_finite(area):
            raise ValueError(f"{self._where(raw, image)} has area {area!r}; it must be a number of pixels.")
        self._box.extend(box)
        self._area.append(area)
        self._classes.append(number)
        self._crowd.append(1 if raw.get("iscrowd") else 0)
        self._polygon.append(len(self._point_at) - 1)
        self._run_at.append(len(self._run))

    def _clipped_box(self, raw: dict[str, Any], image: dict[str, Any]) -> tuple[float, float, float, float] | None:
        box = _field(raw, "bbox", self.path, "annotation")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
            raise ValueError(f"{self._where(raw, image)} has bbox {box}; it must be four numbers x, y, width, height.")
        x, y, width, height = map(float, box)
        if width <= 0 or height <= 0:
            self.tally.add("boxes of no size, dropped", f"{_example(raw, image)}: {width:g}x{height:g}")
            return None
        left, right = max(x, 0.0), min(x + width, float(image["width"]))
        top, bottom = max(y, 0.0), min(y + height, float(image["height"]))
        if right <= left or bottom <= top:
            self.tally.add("boxes outside of their image, dropped", f"{_example(raw, image)}: x {x:g}, y {y:g}")
            return None
        if max(left - x, x + width - right, top - y, y + height - bottom) > ROUNDING:
            self.tally.add("boxes partly outside of their image, clipped", _example(raw, image))
            return left, top, right - left, bottom - top
        return x, y, width, height

    def _add_mask(self, mask: Any, raw: dict[str, Any], image: dict[str, Any]) -> bool:
        """Take polygons of three points or more, or run lengths; return whether there is any."""
        if not isinstance(mask, list):
            self._run += self._run_lengths(mask, raw, image)
            return True
        usable = [p for p in mask if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        if len(usable) < len(mask):
            if not all(isinstance(polygon, list) and all(map(_is_finite, polygon)) for polygon in mask):
                raise self._no_polygons(raw, image)
            what = "annotations that lost a polygon of fewer than 3 points"
            if not usable:
                what = "annotations without a polygon of 3 points or more, dropped"
            self.tally.add(what, _example(raw, image))
        for polygon in usable:
            try:
                self._point.extend(polygon)
            except TypeError as error:
                raise self._no_polygons(raw, image) from error
            if not math.isfinite(sum(polygon)):
                raise self._no_polygons(raw, image)
            self._point_at.append(len(self._point))
        return bool(usable)

    def _no_polygons(self, raw: dict[str, Any], image: dict[str, Any]) -> ValueError:
        return ValueError(
            f"{self._where(raw, image)} has a segmentation that is no list of polygons [[x, y, x, y, ...], ...]."
        )

    def _run_lengths(self, mask: Any, raw: dict[str, Any], image: dict[str, Any]) -> bytes:
        try:
            runs = checked_runs(mask, height=image["height"], width=image["width"])
        except ValueError as error:
            raise ValueError(f"{self._where(raw, image)} {error}") from error
        return bytes(runs["counts"].encode("ascii"))

    def _where(self, raw: dict[str, Any], image: dict[str, Any]) -> str:
        return f"{self.path}: {_example(raw, image)}"


def _ragged(lists: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets and values of lists of ids."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    return offsets, packed_ids([value for items in lists for value in items])


def _field(record: Any, key: str, path: Path, kind: str) -> Any:
    try:
        return record[key]
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{path}: an entry of kind {kind} has no {key!r}: {str(record)[:200]}") from None


def _name(annotation: dict[str, Any]) -> str:
    return f"annotation {annotation.get('id', 'without id')}"


def _example(annotation: dict[str, Any], image: dict[str, Any]) -> str:
    return f"{_name(annotation)} of {image['file_name']}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
