"""COCO's panoptic annotations turned into a semantic set in the `folder` layout.

A panoptic PNG codes the segment of a pixel in its colour, R + 256 G + 65536 B; the JSON says which category a segment
is of (panopticapi, `utils.rgb2id`). Segments of one category become one class; 0, what nobody labelled, is ignored.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from files.naming import files_below, nearest
from files.writing import replacing
from segmentation.classes import CLASS_LIST, Classes, read_class_list, write_class_list
from segmentation.convert import write_labels
from segmentation.labels import IGNORED, MOST_CLASSES
from segmentation.pairs import some


def convert_panoptic(annotations: Path, pngs: Path, images: Path, out: Path, *, split: str = "train") -> int:
    """Write `out/{images,labels}/split/` and `out/classes.txt`, and return the number of images.

    The classes are the categories of the JSON in their order. Raises ValueError for a JSON that is not panoptic, for a
    class list in `out` that differs, and for segments that the JSON does not know.
    """
    content = _read(annotations)
    categories = content["categories"]
    names = tuple(str(category["name"]) for category in categories)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"{annotations}: {len(names)} categories; at most {MOST_CLASSES} classes fit 8 bits.")
    colours = [category.get("color") for category in categories]
    palette = tuple((r, g, b) for r, g, b in colours) if all(colours) else None
    _keep_class_list(out / CLASS_LIST, Classes(names, palette))
    class_of = {int(category["id"]): number for number, category in enumerate(categories)}
    image_names = {image["id"]: image["file_name"] for image in content["images"]}
    for entry in content["annotations"]:
        image = images / image_names[entry["image_id"]]
        if not image.is_file():
            raise FileNotFoundError(
                f"{image}: not there, though {annotations.name} names it; --images holds the images"
                f"{nearest([image_names[entry['image_id']]], files_below(images))}."
            )
        segments = {int(segment["id"]): class_of[segment["category_id"]] for segment in entry["segments_info"]}
        label_HW = panoptic_to_labels(pngs / entry["file_name"], segments)
        write_labels(out / "labels" / split / f"{image.stem}.png", label_HW)
        with replacing(out / "images" / split / image.name) as temporary:
            shutil.copyfile(image, temporary)
    return len(content["annotations"])


def panoptic_to_labels(path: Path, segments: dict[int, int]) -> np.ndarray:
    """Return the classes from 0, 255 where nothing is labelled, (H, W) uint8; `segments` is segment id -> class."""
    with Image.open(path) as image:
        rgb_HW3 = np.asarray(image.convert("RGB")).astype(np.int64)
    ids, inverse = np.unique(rgb_HW3 @ np.array([1, 256, 65536]), return_inverse=True)
    unknown = [str(number) for number in ids.tolist() if number and number not in segments]
    if unknown:
        raise ValueError(f"{path}: holds segments that the JSON does not list: {some(unknown)}.")
    table = np.array([segments[number] if number else IGNORED for number in ids.tolist()], dtype=np.uint8)
    return table[inverse.reshape(rgb_HW3.shape[:2])]


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    entries = content.get("annotations") or [{}]
    if "segments_info" not in entries[0] or "categories" not in content:
        raise ValueError(f"{path}: no panoptic annotations (no segments_info); instances_*.json are for detection.")
    return dict(content)


def _keep_class_list(path: Path, classes: Classes) -> None:
    if path.is_file() and read_class_list(path) != classes:
        raise ValueError(f"{path}: lists other classes than this JSON; the splits of a set share one list.")
    write_class_list(path, classes)
