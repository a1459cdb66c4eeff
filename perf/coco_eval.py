"""Time of COCO evaluation against pycocotools, for boxes and masks.

    python perf/coco_eval.py
    python perf/coco_eval.py --images 1000
    python perf/coco_eval.py --no-peer     # the resamples, without pycocotools

Random objects of 80 classes (7 per image, one in 40 a crowd) and 100 detections per image. Both sides start from the
same parsed annotations and results and end with the 12 numbers. Prints seconds, the ratio, how far the numbers are
apart, and the time of 1,000 resamples of AP.
"""

import contextlib
import copy
import io
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as rle
import tyro
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.evaluation.matches import KINDS, Kind, image_matches
from detection.evaluation.score import SUMMARY, evaluate_coco
from metrics.coco_ap import AveragePrecision, ImageMatches

CLASSES, OBJECTS, DETECTIONS, HEIGHT, WIDTH = 80, 7, 100, 480, 640


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    images: int = 5000
    """Images of the data set."""
    resamples: int = 1000
    """Resamples of AP."""
    peer: bool = True
    """Run pycocotools too, which takes nearly all of the time."""


def objects(rng: np.random.Generator, box_N4: np.ndarray) -> list[dict[str, Any]]:
    """Return boxes with masks of 24 points on a wavy ellipse within each."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = rng.uniform(0.7, 1.0, (len(box_N4), 24))
    centre, half = box_N4[:, :2] + box_N4[:, 2:] / 2, box_N4[:, 2:] / 2
    x = centre[:, :1] + half[:, :1] * radius * np.cos(angle)
    y = centre[:, 1:] + half[:, 1:] * radius * np.sin(angle)
    polygons = np.stack([x, y], axis=2).reshape(len(box_N4), -1).tolist()
    masks = rle.frPyObjects(polygons, HEIGHT, WIDTH)
    return [
        {"bbox": box, "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()}}
        for box, mask in zip(box_N4.tolist(), masks, strict=True)
    ]


def data_set(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return ground truth and detections, most of which lie near an object."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        side = np.exp(rng.uniform(np.log(12), np.log(300), (OBJECTS, 2)))
        box = np.concatenate([rng.uniform(0, 1, (OBJECTS, 2)) * ((WIDTH, HEIGHT) - side), side], axis=1)
        category = rng.integers(1, CLASSES + 1, OBJECTS)
        for drawn, number in zip(objects(rng, box), category.tolist(), strict=True):
            crowd = int(rng.random() < 0.025)
            area = float(rle.area(drawn["segmentation"]))
            annotations.append(
                {**drawn, "id": len(annotations) + 1, "image_id": image, "category_id": number}
                | {"area": area, "iscrowd": crowd}
            )
        near = rng.integers(0, OBJECTS, DETECTIONS)
        moved = box[near] + rng.normal(0, 0.1, (DETECTIONS, 4)) * np.tile(side[near], 2)
        moved[:, 2:] = moved[:, 2:].clip(2)
        wrong = rng.random(DETECTIONS) < 0.3
        labels = np.where(wrong, rng.integers(1, CLASSES + 1, DETECTIONS), category[near])
        scores = rng.uniform(0.05, 1, DETECTIONS)
        found += [
            {**drawn, "image_id": image, "category_id": label, "score": score}
            for drawn, label, score in zip(objects(rng, moved), labels.tolist(), scores.tolist(), strict=True)
        ]
    truth = {
        "info": {},
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(1, images + 1)],
        "categories": [{"id": n, "name": str(n)} for n in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return truth, found


def reference(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> np.ndarray:
    """Return pycocotools' 12 numbers; masks without boxes, as detectron2 hands them over."""
    drop = "segmentation" if kind == "bbox" else "bbox"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        results = coco.loadRes([{key: value for key, value in item.items() if key != drop} for item in found])
        evaluation = COCOeval(coco, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def by_image(items: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Return annotations or detections by their image."""
    found: dict[int, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item["image_id"], []).append(item)
    return found


def measure(truth: dict[str, Any], found: list[dict[str, Any]], kind: Kind, args: Args) -> None:
    """Print the figures of boxes or masks."""
    began = time.perf_counter()
    ours = evaluate_coco(truth, found, kind=kind)
    own = time.perf_counter() - began
    if args.peer:
        changed_truth = copy.deepcopy(truth)  # pycocotools writes into what it is given
        began = time.perf_counter()
        theirs = reference(changed_truth, found, kind)
        other = time.perf_counter() - began
        furthest = max(abs(ours.summary[name] - 100 * value) for name, value in zip(SUMMARY, theirs, strict=True))
        print(f"{kind}: {own:.1f} s, pycocotools {other:.1f} s, {other / own:.1f}x; largest difference {furthest:.1e}")
    objects, detections = by_image(truth["annotations"]), by_image(found)
    began = time.perf_counter()
    rows: list[ImageMatches] = [
        image_matches(objects.get(image["id"], []), detections.get(image["id"], []), kind) for image in truth["images"]
    ]
    per_image = (time.perf_counter() - began) / len(rows)
    size = sum(len(json.dumps(row)) for row in rows) / len(rows)
    print(f"{kind}: matches {1000 * per_image:.2f} ms and {size / 1024:.1f} KiB per image")
    began = time.perf_counter()
    precision = AveragePrecision(rows)
    once = precision.of(np.ones((1, len(rows)), np.int64))[0]
    times_RI = np.random.default_rng(0).multinomial(len(rows), [1 / len(rows)] * len(rows), size=args.resamples)
    spread = precision.of(times_RI).std()
    seconds = time.perf_counter() - began
    print(f"{kind}: AP {once:.6f} (COCOeval {ours.summary['ap']:.6f})")
    print(f"{kind}: {args.resamples} resamples {seconds:.1f} s, standard deviation {spread:.3f}")


def main() -> None:
    """Print the figures."""
    args = tyro.cli(Args, description=__doc__)
    truth, found = data_set(args.images)
    for kind in KINDS:
        measure(truth, found, kind, args)


if __name__ == "__main__":
    main()
