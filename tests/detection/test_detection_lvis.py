"""LVIS's protocol against faster-coco-eval's own, and AP from the matches that a results file keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from detection.coco import read_coco
from detection.matches import Annotated, image_matches
from detection.results import Truth
from detection.score import evaluate_coco
from engine.matching import ap_from_matches
from engine.task import ImageResult
from scenes.layouts import ScenesIndex

IMAGES, CLASSES = 30, 6


def boxes(random: np.random.Generator, count: int) -> list[list[float]]:
    corners = random.uniform(0, 100, (count, 2))
    return np.concatenate([corners, random.uniform(5, 120, (count, 2))], axis=1).round(1).tolist()


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects, and detections near them, beside them, and of classes that an image is not annotated for."""
    random = np.random.default_rng(0)
    images, annotations, detections = [], [], []
    for image in range(1, IMAGES + 1):
        kinds = random.permutation(CLASSES) + 1
        present, absent = kinds[: random.integers(0, 4)].tolist(), kinds[4:].tolist()
        partial = [kind for kind in present if random.random() < 0.4]
        images.append(
            {
                "id": image,
                "file_name": f"{image}.jpg",
                "height": 240,
                "width": 240,
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": partial,
            }
        )
        for kind in present:
            for box in boxes(random, int(random.integers(1, 4))):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": kind,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
                near = (np.array(box) + random.normal(0, 5, 4)).clip(1).tolist()
                detections.append({"image_id": image, "category_id": kind, "bbox": near, "score": random.random()})
        # one image has more detections than LVIS looks at, most of them of one class
        for box in boxes(random, 400 if image == 3 else 12):
            kind = int(kinds[0]) if image == 3 and random.random() < 0.9 else int(random.integers(1, CLASSES + 1))
            detections.append({"image_id": image, "category_id": kind, "bbox": box, "score": random.random()})
    categories = [{"id": n, "name": str(n), "frequency": "rcf"[n % 3]} for n in range(1, CLASSES + 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, detections


def best_of_each_image(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ranked = sorted(detections, key=lambda d: -d["score"])
    return [d for image in range(1, IMAGES + 1) for d in [r for r in ranked if r["image_id"] == image][:300]]


def test_numbers_are_those_of_faster_coco_eval(data: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, detections = data
    ours = evaluate_coco(truth, detections, kind="bbox").summary
    peer = COCO(truth)
    evaluation = COCOeval_faster(
        peer, peer.loadRes(best_of_each_image(detections)), "bbox", lvis_style=True, print_function=lambda *_: None
    )
    evaluation.params.maxDets = [1, 10, 300]
    evaluation.run()
    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar300"]
    theirs = {name: 100 * value for name, value in zip(names, evaluation.stats, strict=False) if value >= 0}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    assert 5 < ours["ap"] < 95 and "ar100" not in ours
    # COCO's protocol counts what LVIS leaves open as misses
    plain = {
        **truth,
        "images": [
            {k: v for k, v in i.items() if k not in ("neg_category_ids", "not_exhaustive_category_ids")}
            for i in truth["images"]
        ],
    }
    assert evaluate_coco(plain, detections, kind="bbox").summary["ap"] < ours["ap"]


def test_matches_give_the_same_ap(data: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, detections = data
    rows = []
    for image in truth["images"]:
        annotated = Annotated(frozenset(image["neg_category_ids"]), frozenset(image["not_exhaustive_category_ids"]))
        of_image = [[a for a in side if a["image_id"] == image["id"]] for side in (truth["annotations"], detections)]
        rows.append(image_matches(of_image[0], of_image[1], "bbox", annotated))
    ap = ap_from_matches(rows, [1] * len(rows))
    assert ap == pytest.approx(evaluate_coco(truth, detections, kind="bbox").summary["ap"], abs=1e-9)


def test_what_the_annotations_do_not_list_is_refused(data: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, detections = data
    with pytest.raises(ValueError, match="detection 1 is of image 1 and category 99; the annotations do not list 99"):
        evaluate_coco(truth, [{**detections[0], "category_id": 99}], kind="bbox")


def test_a_split_of_lvis_is_scored_so(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """From the file to the scores and to the matches that a results file keeps."""
    content = json.loads((few_scenes.coco / "annotations" / "instances_val2017.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    for number, image in enumerate(content["images"]):
        image |= {"neg_category_ids": ids[:2], "not_exhaustive_category_ids": ids[2:] if number % 2 else []}
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    truth = Truth(read_coco(path, data=few_scenes.coco, split="val2017"), masks=False)
    random = np.random.default_rng(1)
    results = []
    for image in content["images"]:
        found = [
            {
                "category_id": a["category_id"],
                "bbox": (np.array(a["bbox"]) + random.normal(0, 2, 4)).clip(1).tolist(),
                "score": random.random(),
            }
            for a in content["annotations"]
            if a["image_id"] == image["id"]
        ]
        found += [
            {"category_id": i, "bbox": [1.0, 2.0, 9.0, 9.0], "score": 0.5 + random.random()} for i in ids for _ in "ab"
        ]
        values = {"coco_image_id": image["id"], "detections": found, **truth.matches(image["id"], found)}
        results.append(ImageResult(image["file_name"], values))
    summary = truth.scores(results)["box"].summary
    assert 0 < summary["ap"] < 100 and "ar300" in summary
    rows = [result.values["box_matches"] for result in results]
    assert ap_from_matches(rows, [1] * len(rows)) == pytest.approx(summary["ap"], abs=1e-9)
