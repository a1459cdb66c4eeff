"""COCO's detection metrics (cocodataset.org, "Detection evaluation") by faster-coco-eval, in per cent; LVIS's too.

Its compiled matching and accumulation are used; IoUs and mask areas are asked of pycocotools in bulk, and no annotation
is copied, which is where most of the time of both libraries goes.

Axis letters: T IoU thresholds, R recall values 0 to 1, K classes, A area ranges, M limits of detections.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faster_coco_eval.faster_eval_api_cpp as compiled
import numpy as np
import pycocotools.mask as rle
from faster_coco_eval import COCOeval_faster

from detection.data.store import FREQUENCIES
from detection.evaluation.matches import MOST_OF_LVIS, MOST_PER_CLASS, Annotated, Kind, compressed

# COCO's list of summary numbers, in its order
SUMMARY = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoScores:
    """What COCO's protocol says of a set of detections."""

    summary: dict[str, float]
    """`ap`, `ap50`, ... `ar_large` from 0 to 100, of LVIS also `ap_rare`, `ap_common` and `ap_frequent`, the mean over
    the classes that its annotations call so; a size or a frequency that no object has is left out."""
    class_ap: dict[str, float]
    """AP by class name from 0 to 100, of the classes that have an object."""
    precision50_KR: np.ndarray
    """Precision from 0 to 1 at IoU 0.5 for recalls 0, 0.01, ... 1; -1 for a class without object."""
    class_names: tuple[str, ...]
    """Of the rows."""
    class_frequency: tuple[str, ...]
    """`rare`, `common` or `frequent`, of the rows, where LVIS's annotations say it; empty elsewhere."""


def evaluate_coco(ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, kind: Kind) -> CocoScores:
    """Return the scores of `detections`, in COCO's results form over all images; none at all is an AP of 0.

    `ground_truth` is in COCO's form, as `read_coco` cleans it; ids may be numbers or text. Where its images say which
    categories are absent, LVIS's protocol holds: detections of other categories than those and an image's own do not
    count, nor do those that find no object of a category that is annotated in part, and `ar100` is `ar300`. Raises
    ValueError for a detection of an image or a category that it does not list.
    """
    annotated = {
        image["id"]: Annotated(frozenset(image["neg_category_ids"]), frozenset(image["not_exhaustive_category_ids"]))
        for image in ground_truth["images"]
        if "neg_category_ids" in image
    }
    image_index = {image["id"]: number for number, image in enumerate(ground_truth["images"])}
    categories = sorted(ground_truth["categories"], key=lambda category: category["id"])
    class_index = {category["id"]: number for number, category in enumerate(categories)}
    sizes = [(image["height"], image["width"]) for image in ground_truth["images"]]
    pairs = _Pairs(image_index, class_index, kind, annotated)
    for annotation in ground_truth["annotations"]:
        shape = annotation.get("bbox")
        if kind == "segm":
            height, width = sizes[image_index[annotation["image_id"]]]
            shape = compressed(annotation["segmentation"], height=height, width=width)
        pairs.add_object(annotation, shape)
    pairs.add_detections(detections)
    evaluation = COCOeval_faster(iouType=kind, print_function=_quiet)
    parameters = evaluation.params
    if annotated:
        parameters.maxDets = [*parameters.maxDets[:-1], MOST_OF_LVIS]
    parameters.imgIds, parameters.catIds = list(range(len(image_index))), list(range(len(class_index)))
    evaluation.eval = compiled.COCOevalEvaluateAccumulate(
        parameters, pairs.ious(), pairs.truth, pairs.found, parameters.imgIds, parameters.catIds, True
    )
    evaluation.summarize()
    labels = [f"ar{MOST_OF_LVIS}" if annotated and label == "ar100" else label for label in SUMMARY]
    values = dict(zip(labels, map(float, evaluation.stats), strict=True))
    precision_TRKAM = evaluation.eval["precision"]
    ap_K = precision_TRKAM[:, :, :, 0, -1].mean(axis=(0, 1))
    names = _distinct(categories)
    frequency: tuple[str, ...] = ()
    if annotated and "frequency" in categories[0]:
        frequency = tuple(FREQUENCIES[category["frequency"]] for category in categories)
    return CocoScores(
        summary={
            name: 100 * value for name, value in {**values, **_by_frequency(frequency, ap_K)}.items() if value >= 0
        },
        class_ap={name: 100 * float(ap) for name, ap in zip(names, ap_K, strict=True) if ap >= 0},
        precision50_KR=precision_TRKAM[0, :, :, 0, -1].T.copy(),
        class_names=names,
        class_frequency=frequency,
    )


class _Pairs:
    """Objects and detections by image and class, in the form that the compiled code reads."""

    def __init__(
        self, image_index: dict[Any, int], class_index: dict[Any, int], kind: Kind, annotated: dict[Any, Annotated]
    ) -> None:
        """`annotated` is what LVIS says of each image, empty for COCO."""
        self.truth, self.found = compiled.Dataset(), compiled.Dataset()
        self._images, self._classes, self._kind, self._annotated = image_index, class_index, kind, annotated
        self._objects: dict[tuple[int, int], list[tuple[Any, int]]] = {}
        self._detections: dict[tuple[int, int], list[int]] = {}
        self._scores: list[float] = []
        self._shapes: list[Any] = []
        self._count = 0

    def add_object(self, annotation: dict[str, Any], shape: Any) -> None:
        """Take an annotation with its box or its run lengths."""
        crowd = int(annotation.get("iscrowd", 0))
        self._count += 1
        # numbered from 1: the matching takes 0 for no match
        plain = {"id": self._count, "area": annotation["area"], "iscrowd": crowd, "ignore": crowd}
        place = (self._images[annotation["image_id"]], self._classes[annotation["category_id"]])
        self.truth.append_ref(*place, plain)
        self._objects.setdefault(place, []).append((shape, crowd))

    def add_detections(self, detections: Sequence[dict[str, Any]]) -> None:
        """Take all detections. Of masks the area, which the size ranges go by, is the mask's."""
        self._scores = [detection["score"] for detection in detections]
        self._shapes = [detection["bbox" if self._kind == "bbox" else "segmentation"] for detection in detections]
        areas = mask_areas(self._shapes) if self._kind == "segm" else [box[2] * box[3] for box in self._shapes]
        surplus = self._surplus(detections)
        for number, (detection, area) in enumerate(zip(detections, areas, strict=True)):
            try:
                place = (self._images[detection["image_id"]], self._classes[detection["category_id"]])
            except KeyError as error:
                raise ValueError(
                    f"detection {number + 1} is of image {detection.get('image_id')!r} and category "
                    f"{detection.get('category_id')!r}; the annotations do not list {error}."
                ) from None
            plain = {"id": number + 1, "score": self._scores[number], "area": area, "iscrowd": 0}
            if self._annotated:
                known = self._annotated[detection["image_id"]]
                if number in surplus or not (place in self._objects or detection["category_id"] in known.absent):
                    continue
                plain["lvis_mark"] = detection["category_id"] in known.partial
            self.found.append_ref(*place, plain)
            self._detections.setdefault(place, []).append(number)

    def _surplus(self, detections: Sequence[dict[str, Any]]) -> set[int]:
        """Return the numbers of the detections that LVIS's limit per image leaves out."""
        if not self._annotated:
            return set()
        of_image = defaultdict(list)
        for number in sorted(range(len(detections)), key=lambda number: -self._scores[number]):
            of_image[detections[number]["image_id"]].append(number)
        return {number for numbers in of_image.values() for number in numbers[MOST_OF_LVIS:]}

    def ious(self) -> list[list[Any]]:
        """Return the IoUs of every image and class, detections by falling score, empty where either has none."""
        empty: list[float] = []
        most = MOST_OF_LVIS if self._annotated else MOST_PER_CLASS
        table: list[list[Any]] = [[empty] * len(self._classes) for _ in self._images]
        for place, objects in self._objects.items():
            if found := self._detections.get(place):
                ranked = sorted(found, key=lambda number: -self._scores[number])[:most]
                shapes: list[Any] = [[self._shapes[number] for number in ranked], [shape for shape, _ in objects]]
                if self._kind == "bbox":
                    shapes = [np.array(side, np.float64) for side in shapes]
                table[place[0]][place[1]] = rle.iou(*shapes, [crowd for _, crowd in objects])
        return table


def _by_frequency(frequency: Sequence[str], ap_K: np.ndarray) -> dict[str, float]:
    """Return the mean AP of each frequency's classes that have an object, -1 for none (lvis-api's `_summarize`)."""
    found = {}
    for group in FREQUENCIES.values() if frequency else ():
        chosen_K = (np.array(frequency) == group) & (ap_K >= 0)
        found[f"ap_{group}"] = float(ap_K[chosen_K].mean()) if chosen_K.any() else -1.0
    return found


def _distinct(categories: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names, with the id where two categories have the same one."""
    times = Counter(category["name"] for category in categories)
    return tuple(f"{c['name']} ({c['id']})" if times[c["name"]] > 1 else str(c["name"]) for c in categories)


def mask_areas(masks: Sequence[dict[str, Any]]) -> list[int]:
    """Return the pixels of each of many compressed run lengths."""
    # with NumPy 2 pycocotools keeps the length of its argument in eight bits, and raises OverflowError
    blocks = (list(masks[start : start + 255]) for start in range(0, len(masks), 255))
    return [area for block in blocks for area in rle.area(block).tolist()]


def _quiet(*_: Any) -> None:
    """Print nothing."""
