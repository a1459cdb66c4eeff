"""AP: by hand, and equal to pycocotools' and detectron2's."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.score import coco_metrics

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def truth(boxes: list[tuple[int, int, list[float]]], images: int = 2) -> dict[str, Any]:
    """Ground truth from (image, category, box), every mask the box."""
    return {
        "info": {},
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 200, "width": 200} for n in range(images)],
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "kite"}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": filled(box),
            }
            for number, (image, category, box) in enumerate(boxes, start=1)
        ],
    }


def filled(box: list[float]) -> dict[str, Any]:
    """The box as a compressed mask of a 200x200 image."""
    x, y, width, height = (int(v) for v in box)
    mask = np.zeros((200, 200), np.uint8)
    mask[y : y + height, x : x + width] = 1
    packed = rle.encode(np.asfortranarray(mask))
    return {"size": [200, 200], "counts": packed["counts"].decode()}


def detection(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "score": score,
        "segmentation": filled(box),
    }


def random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Twelve images with objects of all sizes, crowds, an image without object and one without detection."""
    rng = np.random.default_rng(seed)

    def box() -> list[float]:
        side = rng.choice([12, 50, 120], size=2) * rng.uniform(0.7, 1.3, 2)
        corner = rng.uniform(0, 200 - side)
        return [float(round(v)) for v in (*corner, *side)]

    boxes = [(int(i), int(c), box()) for i in range(1, 12) for c in rng.choice([3, 7], rng.integers(1, 7))]
    ground_truth = truth(boxes, images=12)
    for annotation in ground_truth["annotations"][::9]:
        annotation["iscrowd"] = 1
    found = []
    for image, category, exact in boxes:
        if image == 11:
            continue
        for _ in range(3):
            moved = [float(round(v)) for v in np.clip(np.array(exact) + rng.normal(0, 4, 4), 1, 199)]
            other = 10 - category if rng.random() < 0.2 else category
            found.append(detection(image, other, moved, float(rng.uniform())))
    found += [detection(0, 3, box(), float(rng.uniform())) for _ in range(4)]
    return ground_truth, found


def reference(ground_truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """pycocotools' summary; masks without boxes, as detectron2 hands them over."""
    drop = "segmentation" if kind == "bbox" else "bbox"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(ground_truth))
        coco.createIndex()
        results = coco.loadRes([{k: v for k, v in d.items() if k != drop} for d in found])
        evaluation = COCOeval(coco, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * value for name, value in zip(NAMES, evaluation.stats, strict=False) if value >= 0}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed: int, kind: Any) -> None:
    ground_truth, found = random_case(seed)
    before = json.dumps([ground_truth, found])
    metrics = coco_metrics(ground_truth, found, kind=kind)
    expected = reference(ground_truth, found, kind)
    assert metrics.keys() == expected.keys() and 5 < metrics["ap"] < 95
    for name, value in expected.items():
        # the same sums of the same float64 precisions, in another order
        assert metrics[name] == pytest.approx(value, abs=1e-9)
    assert json.dumps([ground_truth, found]) == before, "the inputs were changed"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equal_to_detectron2(tmp_path: Path, kind: Any) -> None:
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import COCOEvaluator

    ground_truth, found = random_case(5)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(ground_truth))
    name = f"test_{kind}"
    MetadataCatalog.get(name).set(json_file=str(path), thing_dataset_id_to_contiguous_id={3: 0, 7: 1})
    evaluator = COCOEvaluator(name, tasks=(kind,), distributed=False)
    evaluator.reset()
    contiguous = [{**d, "category_id": {3: 0, 7: 1}[d["category_id"]]} for d in found]
    evaluator._predictions = [
        {"image_id": image, "instances": [d for d in contiguous if d["image_id"] == image]} for image in range(12)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        expected = evaluator.evaluate()[kind]
    MetadataCatalog.pop(name)
    metrics = coco_metrics(ground_truth, found, kind=kind)
    for ours, theirs in zip(NAMES, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=True):
        assert metrics[ours] == pytest.approx(expected[theirs], abs=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections(kind: Any) -> None:
    ground_truth = truth([(0, 3, [10, 10, 40, 40]), (1, 7, [50, 60, 100, 100])])
    found = [detection(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in ground_truth["annotations"]]
    assert coco_metrics(ground_truth, found, kind=kind) == pytest.approx(
        {"ap": 100.0, "ap50": 100.0, "ap75": 100.0, "ap_medium": 100.0, "ap_large": 100.0}
    )


def test_by_hand() -> None:
    """One category, two objects; ranked: a hit of IoU 0.8, a miss, an exact hit.

    At IoU up to 0.8: precision 1 up to recall 1/2, then 2/3. Of the 101 recalls 0, 0.01, ..., 1 the first 51 see 1
    and 50 see 2/3: (51 + 50 * 2 / 3) / 101. Above, only the third hits: precision 1/3 up to recall 1/2: 51 / 303.
    """
    ground_truth = truth([(0, 3, [0, 0, 100, 100]), (1, 3, [0, 0, 100, 100])])
    found = [
        detection(0, 3, [0, 0, 80, 100], 0.9),
        detection(1, 3, [100, 100, 50, 50], 0.8),
        detection(1, 3, [0, 0, 100, 100], 0.7),
    ]
    metrics = coco_metrics(ground_truth, found, kind="bbox")
    loose, strict = (51 + 50 * 2 / 3) / 101, 51 / 303
    assert metrics["ap50"] == pytest.approx(100 * loose)
    # thresholds 0.5, 0.55, ..., 0.95: the hit of 0.8 counts for the first seven
    assert metrics["ap"] == pytest.approx(100 * (7 * loose + 3 * strict) / 10)
    assert "ap_small" not in metrics


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_no_detection_is_zero(kind: Any) -> None:
    assert coco_metrics(truth([(0, 3, [0, 0, 100, 100])]), [], kind=kind) == {
        "ap": 0.0,
        "ap50": 0.0,
        "ap75": 0.0,
        "ap_large": 0.0,
    }
