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

from detection.data.coco import read_coco
from detection.evaluation.matches import Kind, compressed, image_matches
from detection.evaluation.score import SUMMARY, evaluate_coco
from metrics.coco_ap import AveragePrecision, ap_from_matches


def coco_metrics(ground_truth: dict[str, Any], found: list[dict[str, Any]], *, kind: Kind) -> dict[str, float]:
    """The summary alone."""
    return evaluate_coco(ground_truth, found, kind=kind).summary


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
    return {name: 100 * value for name, value in zip(SUMMARY, evaluation.stats, strict=True) if value >= 0}


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
    for ours, theirs in zip(SUMMARY, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=False):
        assert metrics[ours] == pytest.approx(expected[theirs], abs=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections(kind: Any) -> None:
    ground_truth = truth([(0, 3, [10, 10, 40, 40]), (1, 7, [50, 60, 100, 100])])
    found = [detection(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in ground_truth["annotations"]]
    metrics = coco_metrics(ground_truth, found, kind=kind)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 100.0))
    assert SUMMARY[:3] == tuple(metrics)[:3] and "ap_small" not in metrics and "ar_medium" in metrics


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
    metrics = coco_metrics(truth([(0, 3, [0, 0, 100, 100])]), [], kind=kind)
    assert metrics == dict.fromkeys(("ap", "ap50", "ap75", "ap_large", "ar1", "ar10", "ar100", "ar_large"), 0.0)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_more_than_a_hundred_detections(kind: Any) -> None:
    """Of 130 detections of a class in an image the worst 30 do not count; among equal scores the first ones do."""
    rng = np.random.default_rng(3)
    boxes = [(1, 3, [float(10 * n), 20.0, 9.0, 40.0]) for n in range(15)]
    ground_truth = truth(boxes)
    scores = rng.choice([0.1, 0.2, 0.3, 0.9], 130)
    found = [detection(1, 3, [float(10 * (n % 15)), 20.0, 9.0, 30.0 + n % 7], float(s)) for n, s in enumerate(scores)]
    metrics = coco_metrics(ground_truth, found, kind=kind)
    assert metrics == pytest.approx(reference(ground_truth, found, kind), abs=1e-9)
    assert metrics["ar1"] < metrics["ar10"] < metrics["ar100"] + 1e-9


def test_ids_may_be_text() -> None:
    ground_truth, found = random_case(1)
    expected = coco_metrics(ground_truth, found, kind="bbox")
    for item in (*ground_truth["annotations"], *found):
        item |= {"image_id": f"image {item['image_id']:02}", "category_id": f"c{item['category_id']}"}
    for image in ground_truth["images"]:
        image["id"] = f"image {image['id']:02}"
    for category in ground_truth["categories"]:
        category["id"] = f"c{category['id']}"
    assert coco_metrics(ground_truth, found, kind="bbox") == expected


def test_ap_per_class_and_precision() -> None:
    ground_truth = truth([(0, 3, [0, 0, 100, 100]), (1, 3, [0, 0, 100, 100])])
    scores = evaluate_coco(ground_truth, [detection(0, 3, [0, 0, 100, 100], 0.9)], kind="bbox")
    # half of the objects are found without a mistake: recalls 0 to 0.5 are 51 of 101; no kite exists
    assert scores.class_ap == pytest.approx({"car": 100 * 51 / 101})
    assert scores.class_names == ("car", "kite")
    assert scores.precision50_KR[0].tolist() == pytest.approx([1.0] * 51 + [0.0] * 50)
    assert (scores.precision50_KR[1] == -1).all()
    same = {**ground_truth, "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "car"}]}
    assert evaluate_coco(same, [], kind="bbox").class_names == ("car (3)", "car (7)")


def test_detection_of_an_unlisted_image() -> None:
    with pytest.raises(ValueError, match="detection 1 is of image 9 and category 3; the annotations do not list 9"):
        evaluate_coco(truth([(0, 3, [0, 0, 9, 9])]), [detection(9, 3, [0, 0, 9, 9], 0.5)], kind="bbox")


def rows_of(ground_truth: dict[str, Any], found: list[dict[str, Any]], kind: Kind) -> list[Any]:
    """The matches of every image, as a results file gives them back."""
    return json.loads(
        json.dumps(
            [
                image_matches(
                    [a for a in ground_truth["annotations"] if a["image_id"] == image["id"]],
                    [d for d in found if d["image_id"] == image["id"]],
                    kind,
                )
                for image in ground_truth["images"]
            ]
        )
    )


def repeated(
    ground_truth: dict[str, Any], found: list[dict[str, Any]], times: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data set with image i there `times[i]` times, as images of their own."""
    images, annotations, detections = [], [], []
    for image, count in zip(ground_truth["images"], times, strict=True):
        for _ in range(count):
            number = len(images)
            images.append({**image, "id": number})
            for items, into in ((ground_truth["annotations"], annotations), (found, detections)):
                into += [{**item, "image_id": number} for item in items if item["image_id"] == image["id"]]
    annotations = [{**a, "id": n} for n, a in enumerate(annotations, start=1)]
    return {**ground_truth, "images": images, "annotations": annotations}, detections


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_matches_give_the_ap_of_pycocotools(seed: int, kind: Any) -> None:
    """Once each, and resampled, with crowds, empty images and equal scores in different images."""
    ground_truth, found = random_case(seed)
    for item in found:
        item["score"] = round(item["score"], 2) + 1e-4 * (item["bbox"][0] + item["bbox"][1] / 7)
    rows = rows_of(ground_truth, found, kind)
    assert sum(left_out > 0 for row in rows for *_, left_out in row["detections"]) > 0, "no crowd is touched"
    assert ap_from_matches(rows, [1] * 12) == pytest.approx(reference(ground_truth, found, kind)["ap"], abs=1e-9)
    times_RI = np.random.default_rng(seed).multinomial(12, [1 / 12] * 12, size=5)
    values = AveragePrecision(rows).of(times_RI)
    for times, value in zip(times_RI.tolist(), values, strict=True):
        # the same sums of the same float64 precisions, in another order
        assert value == pytest.approx(reference(*repeated(ground_truth, found, times), kind)["ap"], abs=1e-9)


def test_recall_values_are_compared_as_cocoeval_compares_them() -> None:
    """For every number of objects up to 400 the recalls reached are those of a search among the 101 values."""
    from metrics.coco_ap import RECALLS, _recalls_reached

    for objects in range(1, 401):
        hit_RM = np.arange(objects + 1)[None]
        expected = np.searchsorted(RECALLS, np.arange(objects + 1) / objects, side="right")
        expected[0] = 0
        assert (_recalls_reached(hit_RM, np.array([objects]))[0] == expected).all(), objects


def test_resamples_that_make_no_sense() -> None:
    ground_truth, found = random_case(0)
    precision = AveragePrecision(rows_of(ground_truth, found, "bbox"))
    with pytest.raises(ValueError, match=r"multiplicities of shape \(1, 3\); 12 images need \(resamples, 12\)"):
        precision.of(np.ones((1, 3), np.int64))
    with pytest.raises(ValueError, match="a multiplicity is -1"):
        precision.of(-np.ones((1, 12), np.int64))
    assert np.isnan(precision.of(np.zeros((1, 12), np.int64))[0])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("split", ["train2017", "mixed2017"])
def test_genuine_annotations_as_detections_score_100(split: str, kind: Any, real_data: Path) -> None:
    """Genuine COCO records, crowds as run lengths among them; a detection on a crowd does not count against AP."""
    root = real_data / "coco_genuine"
    coco = read_coco(root / "annotations" / f"instances_{split}.json", data=root, split=split)
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco.ground_truth["images"]}
    found = []
    for annotation in coco.ground_truth["annotations"]:
        height, width = sizes[annotation["image_id"]]
        mask = compressed(annotation["segmentation"], height=height, width=width)
        kept = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        found.append({**kept, "segmentation": mask, "score": 0.9})
    metrics = coco_metrics(coco.ground_truth, found, kind=kind)
    assert metrics["ap"] == metrics["ap50"] == metrics["ap75"] == pytest.approx(100.0, abs=1e-9)
