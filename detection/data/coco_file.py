"""Reading of a COCO or LVIS annotation file: parsed, checked and cleaned in one pass.

Errors name the file and the record. What is wrong in single annotations is dropped or clipped, and counted.

LVIS v1 (arXiv 1908.03195) has no `iscrowd` and no `file_name`, which is taken from `coco_url` as its own code does, and
says per image which categories are known to be absent or are not annotated throughout.
"""

import gc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from detection.data.coco_fields import example, field, is_id, is_number, name_of, shown
from detection.data.coco_masks import Mask, read_mask
from detection.data.defects import Tally, some
from detection.data.store import FREQUENCIES, Arrays, Category, Store, packed_ids
from detection.data.whole_file import Shapes, count_names, no_object, without_repeated
from files.digest import check_beside
from files.parsing import read_json

ROUNDING = 1.0  # pixels by which COCO's own boxes may pass the edge of their image
MOST_SIDE = 2**31  # pixels: sizes are kept as 32-bit numbers
LONGEST_NAME = 4096  # bytes of a path


def read_file(path: Path) -> Store:
    """Return the cleaned content of an annotation file.

    Raises ValueError for what is not COCO's format, for ids that are listed twice or not at all, for masks that do not
    fit their image, and where the digest beside the file is of another content.
    """
    check_beside(path)
    with _no_collection():
        content = _parse(path)
        images = _images(content["images"], path)
        lvis = any("neg_category_ids" in image for image in images.values())
        categories = _categories(content["categories"], path, lvis=lvis)
        reader = _Reader(path, categories, lvis=lvis)
        of_image: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in images}
        for raw in content["annotations"]:
            image_id = field(raw, "image_id", path, "annotation")
            if not is_id(image_id):
                raise ValueError(f"{path}: {name_of(raw)} has image_id {shown(image_id)}; it must be an image's id.")
            if image_id not in of_image:
                reader.tally.add("annotations of images that the file does not list, dropped", name_of(raw))
            else:
                of_image[image_id].append(raw)
        of_image = without_repeated(of_image, reader.tally)
        for image_id, image in images.items():
            reader.add_image(image, of_image[image_id])
        count_names((image["file_name"] for image in images.values()), reader.tally)
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
    content = read_json(path)
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
    found = [Category(field(c, "id", path, "category"), _category_name(c, path)) for c in raw]
    _check_ids([category.id for category in found], "categories", path)
    if lvis and any("frequency" in category for category in raw):
        found = [Category(c.id, c.name, _frequency(r, path)) for c, r in zip(found, raw, strict=True)]
    return tuple(sorted(found, key=lambda category: category.id))


def _category_name(category: dict[str, Any], path: Path) -> str:
    name = field(category, "name", path, "category")
    if not is_id(name):
        raise ValueError(f"{path}: category {shown(category['id'])} has name {shown(name)}; it must be text.")
    return str(name)


def _frequency(category: dict[str, Any], path: Path) -> str:
    if category.get("frequency") not in [*FREQUENCIES]:
        raise ValueError(
            f"{path}: category {category['id']!r} has frequency {shown(category.get('frequency'))}; in LVIS's format "
            "each category has 'r', 'c' or 'f' (rare, common, frequent), or none of them has a frequency."
        )
    return str(category["frequency"])


def _images(raw: list[dict[str, Any]], path: Path) -> dict[Any, dict[str, Any]]:
    """Return the image records by ascending id, which is the order that detectron2 gives them."""
    if not raw:
        raise ValueError(f"{path}: lists no image.")
    for image in raw:
        for key in ("id", "height", "width"):
            field(image, key, path, "image")
        sides = [image["height"], image["width"]]
        if not all(type(side) is int and 0 < side < MOST_SIDE for side in sides):
            raise ValueError(
                f"{path}: image {shown(image['id'])} has height {shown(sides[0])} and width {shown(sides[1])}; "
                "both must be whole numbers of pixels above 0."
            )
        if "file_name" not in image and isinstance(image.get("coco_url"), str):
            image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])
        name = field(image, "file_name", path, "image")
        if not isinstance(name, str) or not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"{path}: image {shown(image['id'])} has file_name {shown(name)}; it must be a file's name."
            )
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            ids = image.get(key, [])
            if not isinstance(ids, list) or not all(map(is_id, ids)):
                raise ValueError(
                    f"{path}: image {shown(image['id'])} has {key} {shown(ids)}; it must be a list of ids."
                )
    _check_ids([image["id"] for image in raw], "images", path)
    return {image["id"]: image for image in sorted(raw, key=lambda image: image["id"])}


def _check_ids(ids: list[Any], what: str, path: Path) -> None:
    """Raise ValueError for ids that are neither all whole numbers nor all text, or that occur twice."""
    for kind in (int, str):
        if all(isinstance(value, kind) and not isinstance(value, bool) for value in ids):
            break
    else:
        kinds = some(sorted({shown(value) for value in ids}))
        raise ValueError(f"{path}: ids of `{what}` must be all whole numbers or all text; it has {kinds}.")
    if len(set(ids)) < len(ids):
        seen: set[Any] = set()
        twice = [str(value)[:100] for value in ids if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
        raise ValueError(f"{path}: `{what}` lists {len(twice)} ids more than once: {some(twice)}; give each its own.")


class _Reader:
    """Takes image after image into growing arrays."""

    def __init__(self, path: Path, categories: tuple[Category, ...], *, lvis: bool) -> None:
        self.path, self.categories, self.lvis, self.tally = path, categories, lvis, Tally()
        self._shapes = Shapes()
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
        """Return everything taken. Raises ValueError where that is no object, or no COCO as a whole."""
        self._shapes.check(self.path)
        if sum(self._crowd) == len(self._area):
            raise no_object(self.path, images=len(images), crowds=len(self._area), tally=self.tally)
        listed = list(images.values())
        negative_I, negative = _ragged([image.get("neg_category_ids", ()) for image in listed])
        partial_I, partial = _ragged([image.get("not_exhaustive_category_ids", ()) for image in listed])
        arrays = Arrays(
            image_id_I=packed_ids(list(images)),
            name_I=np.array([image["file_name"].encode() for image in listed]),
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
        category = field(raw, "category_id", self.path, "annotation")
        number = self._class.get(category) if is_id(category) else None
        if number is None:
            raise ValueError(
                f"{self.path}: {name_of(raw)} has category_id {shown(category)}, which `categories` does not "
                f"list; it lists {some(shown(c.id) for c in self.categories)}."
            )
        crowd = self._is_crowd(raw, image)
        box = self._clipped_box(raw, image)
        mask = self._mask(raw, image)
        if box is None or (mask is not None and not self._can_be_used(mask, raw, image)):
            return
        area = self._plausible_area(raw, image, box, mask)
        if mask is not None:
            if self._shapes.add_mask(raw["bbox"], mask.extent):
                self.tally.add("masks that do not touch their boxes, kept as they are", example(raw, image))
            self._run += mask.runs
            for polygon in mask.polygons:
                self._point.extend(polygon)
                self._point_at.append(len(self._point))
        self._box.extend(box)
        self._area.append(area)
        self._classes.append(number)
        self._crowd.append(crowd)
        self._polygon.append(len(self._point_at) - 1)
        self._run_at.append(len(self._run))

    def _is_crowd(self, raw: dict[str, Any], image: dict[str, Any]) -> bool:
        value = raw.get("iscrowd")
        if value is None or (type(value) in (bool, int, float) and value in (0, 1)):
            return bool(value)
        if value in ("0", "1"):
            self.tally.add("iscrowd as text, read as the number", f"{example(raw, image)}: {value!r}")
            return value == "1"
        raise ValueError(f"{self._where(raw, image)} has iscrowd {shown(value)}; it must be 0 or 1.")

    def _clipped_box(self, raw: dict[str, Any], image: dict[str, Any]) -> tuple[float, float, float, float] | None:
        box = field(raw, "bbox", self.path, "annotation")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise ValueError(
                f"{self._where(raw, image)} has bbox {shown(box)}; it must be four numbers x, y, width, height."
            )
        x, y, width, height = map(float, box)
        if width <= 0 or height <= 0:
            self.tally.add("boxes of no size, dropped", f"{example(raw, image)}: {width:g}x{height:g}")
            return None
        self._shapes.add_box(box, height=image["height"], width=image["width"])
        left, right = max(x, 0.0), min(x + width, float(image["width"]))
        top, bottom = max(y, 0.0), min(y + height, float(image["height"]))
        if right <= left or bottom <= top:
            self.tally.add("boxes outside of their image, dropped", f"{example(raw, image)}: x {x:g}, y {y:g}")
            return None
        if max(left - x, x + width - right, top - y, y + height - bottom) > ROUNDING:
            self.tally.add("boxes partly outside of their image, clipped", example(raw, image))
            return left, top, right - left, bottom - top
        if width < 1 and height < 1:
            self.tally.add("boxes of less than a pixel, kept", f"{example(raw, image)}: {width:g}x{height:g}")
        return x, y, width, height

    def _mask(self, raw: dict[str, Any], image: dict[str, Any]) -> Mask | None:
        value = raw.get("segmentation")
        if value is None or value == [] or value == {}:
            return None
        try:
            return read_mask(value, height=image["height"], width=image["width"])
        except ValueError as error:
            raise ValueError(f"{self._where(raw, image)} {error}") from error

    def _can_be_used(self, mask: Mask, raw: dict[str, Any], image: dict[str, Any]) -> bool:
        what = None
        if not mask.polygons and not mask.runs:
            what = "annotations without a polygon of 3 points or more, dropped"
        elif mask.far:
            what = "masks far outside of their image, dropped"
        elif not mask.pixels:
            what = "masks without a pixel in their image, dropped"
        elif mask.short:
            self.tally.add("annotations that lost a polygon of fewer than 3 points", example(raw, image))
        if what is not None:
            self.tally.add(what, example(raw, image))
        return what is None

    def _plausible_area(
        self, raw: dict[str, Any], image: dict[str, Any], box: tuple[float, float, float, float], mask: Mask | None
    ) -> float:
        """Return the stated area, which the size ranges go by, or that of mask or box where it cannot be."""
        area = raw.get("area")
        geometry = box[2] * box[3] if mask is None else float(mask.pixels)
        if area is None:
            return geometry
        if type(area) not in (int, float):
            raise ValueError(f"{self._where(raw, image)} has area {shown(area)}; it must be a number of pixels.")
        most = max((box[2] + 2 * ROUNDING) * (box[3] + 2 * ROUNDING), 2 * geometry)
        if is_number(area) and area > 0 and min(1.0, geometry) <= area <= most:
            return float(area)
        self.tally.add(
            "areas that cannot be, replaced by the mask's or the box's", f"{example(raw, image)}: {shown(area)}"
        )
        return geometry

    def _where(self, raw: dict[str, Any], image: dict[str, Any]) -> str:
        return f"{self.path}: {example(raw, image)}"


def _ragged(lists: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets and values of lists of ids."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    return offsets, packed_ids([value for items in lists for value in items])
