"""COCO's numbers of a results file made by any code, against an annotation file: no images and no model."""

import json
from pathlib import Path
from typing import Any

from detection.coco import ground_truth
from detection.coco_file import read_file
from detection.matches import KINDS, Kind
from detection.results import PREFIX
from detection.score import CocoScores, evaluate_coco

REQUIRED = ("image_id", "category_id", "score")


def score_files(annotations: Path, detections: Path) -> dict[str, CocoScores]:
    """Return the scores by `box` and `mask`: of boxes where both files have them, of masks likewise.

    Raises FileNotFoundError, and ValueError for what is no COCO results file or does not belong to the annotations.
    """
    for path in (annotations, detections):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file.")
    store = read_file(annotations)
    found = _read(detections)
    truth = ground_truth(store)
    kinds: list[Kind] = [
        kind
        for kind, key in zip(KINDS, ("bbox", "segmentation"), strict=True)
        if all(key in detection for detection in found)
        and (kind == "bbox" or store.with_mask == len(store.arrays.area_A))
    ]
    if not kinds:
        raise ValueError(
            f"{detections}: has detections without `bbox`, and no masks that {annotations.name} has masks to hold "
            "against; give each detection a `bbox` or a `segmentation`."
        )
    try:
        return {PREFIX[kind]: evaluate_coco(truth, found, kind=kind) for kind in kinds}
    except ValueError as error:
        raise ValueError(f"{detections}: {error}") from error


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(found, list):
        raise ValueError(f"{path}: not a COCO results file, which is a list of detections.")
    for number, detection in enumerate(found, start=1):
        missing = [key for key in REQUIRED if not isinstance(detection, dict) or key not in detection]
        if missing:
            raise ValueError(f"{path}: detection {number} has no {missing[0]!r}: {str(detection)[:200]}")
    return found
