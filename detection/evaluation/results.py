"""From a model's output to what a run keeps of it: detections in COCO's form, their matches, metrics and files."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
from detectron2.structures import BoxMode, Instances

from detection.data.coco import CocoSplit
from detection.data.store import Category
from detection.evaluation.matches import KINDS, Annotated, Kind, compressed, image_matches
from detection.evaluation.score import CocoScores, evaluate_coco
from engine.records.results_file import ImageResult
from files.writing import replacing
from metrics.coco_ap import ImageMatches

PREFIX: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
DETECTIONS_NAME = "detections.json"
PER_CLASS_NAME = "per_class.csv"


def coco_detections(instances: Instances, categories: Sequence[Category], *, masks: bool) -> list[dict[str, Any]]:
    """Return detections in COCO's results form without the image's id, best first."""
    instances = instances.to("cpu")
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    detections: list[dict[str, Any]] = [
        {"category_id": categories[number].id, "bbox": box, "score": score}
        for number, box, score in zip(instances.pred_classes.tolist(), boxes, instances.scores.tolist(), strict=True)
    ]
    if masks:
        for detection, mask_HW in zip(detections, instances.pred_masks.numpy(), strict=True):
            packed = rle.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
            detection["segmentation"] = {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}
    return detections


class Truth:
    """The annotations that detections are held against, found by the image's id."""

    def __init__(self, split: CocoSplit, *, masks: bool) -> None:
        self.split = split
        self.kinds = KINDS if masks else KINDS[:1]
        self._number = {image_id: number for number, image_id in enumerate(split.store.image_ids)}
        self._class = {category.id: number for number, category in enumerate(split.categories)}

    def annotations(self, image_id: Any) -> list[dict[str, Any]]:
        """Return an image's annotations in COCO's form, masks only where they count."""
        found = []
        for annotation in self.split.store.annotations(self._number[image_id]):
            if len(self.kinds) == 1:
                annotation.pop("segmentation", None)
            found.append({**annotation, "category_id": self.split.categories[annotation["category_id"]].id})
        return found

    def matches(self, image_id: Any, detections: Sequence[dict[str, Any]]) -> dict[str, ImageMatches]:
        """Return `box_matches` and, with masks, `mask_matches` of an image's detections."""
        number = self._number[image_id]
        objects = self.split.store.annotations(number)
        if len(self.kinds) > 1:
            height, width = self.split.store.arrays.size_I2[number].tolist()
            for annotation in objects:
                annotation["segmentation"] = compressed(annotation["segmentation"], height=height, width=width)
        found = [{**detection, "category_id": self._class[detection["category_id"]]} for detection in detections]
        annotated = self._annotated(number)
        return {f"{PREFIX[kind]}_matches": image_matches(objects, found, kind, annotated) for kind in self.kinds}

    def _annotated(self, number: int) -> Annotated | None:
        if not self.split.store.lvis:
            return None
        image = self.split.store.image(number)
        absent, partial = (
            frozenset(self._class[i] for i in image[key] if i in self._class)
            for key in ("neg_category_ids", "not_exhaustive_category_ids")
        )
        return Annotated(absent, partial)

    def scores(self, results: Sequence[ImageResult]) -> dict[str, CocoScores]:
        """Return the scores of all images' results, by `box` and `mask`."""
        detections = coco_results(results)
        return {PREFIX[kind]: evaluate_coco(self.split.ground_truth, detections, kind=kind) for kind in self.kinds}


def coco_results(results: Sequence[ImageResult]) -> list[dict[str, Any]]:
    """Return the detections of all images as a COCO results file lists them."""
    return [
        {"image_id": result.values["coco_image_id"], **detection}
        for result in results
        for detection in result.values["detections"]
    ]


def write_detections(path: Path, results: Sequence[ImageResult]) -> Path:
    """Write a COCO results file, which `tools/evaluate.py coco` and COCO's own code take, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(coco_results(results)), encoding="utf-8")
    return path


def write_per_class(path: Path, scores: dict[str, CocoScores]) -> Path:
    """Write `per_class.csv`: name, of LVIS also frequency, and AP per class in per cent; return its path.

    A class without object has an empty AP.
    """
    first = next(iter(scores.values()))
    lvis = bool(first.class_frequency)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(["frequency"] if lvis else []), *(f"{kind}_ap" for kind in scores)])
        for number, name in enumerate(first.class_names):
            frequency = [first.class_frequency[number]] if lvis else []
            values = [one.class_ap.get(name) for one in scores.values()]
            writer.writerow([name, *frequency, *("" if value is None else f"{value:.4f}" for value in values)])
    return path
