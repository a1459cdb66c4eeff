"""COCO's numbers of a results file made by any code, against an annotation file: no images and no model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.data.coco import ground_truth
from detection.data.coco_file import read_file
from detection.evaluation.matches import KINDS, Kind
from detection.evaluation.results import PREFIX
from detection.evaluation.results_file import SHAPES, read_detections
from detection.evaluation.score import CocoScores, evaluate_coco


@dataclass(frozen=True)
class Rescored:
    """What a results file scores, and what people should know of it."""

    scores: dict[str, CocoScores]
    """By `box` and `mask`: of boxes where both files have them, of masks likewise."""
    notes: tuple[str, ...]


def score_files(annotations: Path, detections: Path) -> Rescored:
    """Return the scores of a results file; an empty list of detections has an AP of 0.

    Raises FileNotFoundError, and ValueError for what is no COCO results file or does not belong to the annotations, and
    where nothing can be scored.
    """
    for path in (annotations, detections):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file.")
    store = read_file(annotations)
    found = read_detections(detections, store, annotations=annotations)
    masks = store.with_mask == len(store.arrays.area_A)
    without = {kind: [n for n, item in enumerate(found, start=1) if SHAPES[kind] not in item] for kind in KINDS}
    kinds: list[Kind] = [kind for kind in KINDS if not without[kind] and (kind == "bbox" or masks)]
    if not kinds:
        raise ValueError(
            f"{detections}: has detections without `bbox`, and no masks that {annotations.name} has masks to hold "
            "against; give each detection a `bbox` or a `segmentation`."
        )
    notes = [
        f"{detections}: {len(numbers)} of {len(found)} detections have no `{SHAPES[kind]}` (the first is detection "
        f"{numbers[0]}), so that {PREFIX[kind]} AP is left out."
        for kind, numbers in without.items()
        if 0 < len(numbers) < len(found)
    ]
    if found and not without["segm"] and not masks:
        notes.append(f"{annotations}: has no masks for all annotations, so that mask AP is left out.")
    truth = ground_truth(store)
    scores = {PREFIX[kind]: _scored(truth, found, kind, annotations) for kind in kinds}
    return Rescored(scores, tuple(notes))


def _scored(truth: dict[str, Any], found: list[dict[str, Any]], kind: Kind, annotations: Path) -> CocoScores:
    scores = evaluate_coco(truth, found, kind=kind)
    if "ap" not in scores.summary:
        raise ValueError(
            f"{annotations}: none of its {len(truth['annotations'])} annotations counts: each is a crowd, or has an "
            "area beyond COCO's range of 0 to 1e10 pixels; there is nothing to score."
        )
    return scores
