"""Reading of a COCO results file: every detection is checked against the annotations before anything is scored.

pycocotools scores what cannot be right, such as boxes of NaN and masks of another size, as detections that find
nothing.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detection.data.defects import some
from detection.data.run_lengths import checked_runs
from detection.data.store import Store
from detection.evaluation.matches import Kind
from files.parsing import read_json

REQUIRED = ("image_id", "category_id", "score")
SHAPES: dict[Kind, str] = {"bbox": "bbox", "segm": "segmentation"}
MOST_EXACT = 2**53  # from here on floats are not every whole number
MOST_SHOWN = 200  # characters of a value in a message


def read_detections(path: Path, store: Store, *, annotations: Path) -> list[dict[str, Any]]:
    """Return the detections of a results file, their `bbox` and `segmentation` where they have one.

    As to COCO's code, null and an empty list are no `bbox` and no `segmentation`. Run lengths may also be lists of
    numbers. Raises ValueError that names the file and the number of the detection.
    """
    content = read_json(path, surrogates=True)  # of fields that are not scored, such as a file's name
    if not isinstance(content, list):
        hint = " It looks like an annotation file." if isinstance(content, dict) and "annotations" in content else ""
        raise ValueError(f"{path}: not a COCO results file, which is a list of detections.{hint}")
    sizes = dict(zip(store.image_ids, store.arrays.size_I2.tolist(), strict=True))
    categories = {category.id: category.name for category in store.categories}
    found = []
    for number, raw in enumerate(content, start=1):
        try:
            found.append(_checked(raw, sizes, categories, annotations.name))
        except ValueError as error:
            raise ValueError(f"{path}: detection {number} {error}") from error
    return found


def _checked(
    raw: Any, sizes: Mapping[Any, list[int]], categories: Mapping[Any, str], annotations: str
) -> dict[str, Any]:
    """Return what is scored of a detection. Raises ValueError that says what is wrong with it."""
    missing = [key for key in REQUIRED if not isinstance(raw, dict) or key not in raw]
    if missing:
        raise ValueError(f"has no {missing[0]!r}: {_shown(raw)}")
    for key, listed in (("image_id", sizes), ("category_id", categories)):
        value = raw[key]
        if not isinstance(value, int | float | str) or isinstance(value, bool) or value not in listed:
            alike = isinstance(value, str) == isinstance(next(iter(listed)), str)
            hint = "" if alike else ": a number is another id than the same number as text"
            raise ValueError(
                f"has {key} {_shown(value)}; the annotations do not list {_shown(value)}. {annotations} has "
                f"{some(map(_shown, listed))}{hint}."
            )
        if isinstance(value, float) and abs(value) >= MOST_EXACT:
            raise ValueError(f"has {key} {value!r}, a float that stands for several whole numbers; write it as one.")
    score = _number(raw["score"])
    if score is None:
        raise ValueError(f"has score {_shown(raw['score'])}; it must be a finite number.")
    detection = {"image_id": raw["image_id"], "category_id": raw["category_id"], "score": score}
    if _given(box := raw.get("bbox")):
        numbers = [n for n in map(_number, box) if n is not None] if isinstance(box, list) and len(box) == 4 else []
        if len(numbers) != 4:
            raise ValueError(f"has bbox {_shown(box)}; it must be four finite numbers x, y, width, height.")
        if min(numbers[2:]) < 0:
            raise ValueError(f"has bbox {_shown(box)}; width and height must not be negative.")
        detection["bbox"] = numbers
    if _given(mask := raw.get("segmentation")):
        if isinstance(mask, list):
            raise ValueError("has polygons as segmentation; in COCO's results format masks are run lengths.")
        height, width = sizes[raw["image_id"]]
        detection["segmentation"] = checked_runs(mask, height=height, width=width)
    return detection


def _given(shape: Any) -> bool:
    return shape is not None and shape != []


def _number(value: Any) -> float | None:
    """Return a finite number as float; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes out
        return f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
