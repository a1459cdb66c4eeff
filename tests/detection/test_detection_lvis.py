"""LVIS's protocol against faster-coco-eval's own, and AP from the matches that a results file keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from detection.data.coco import read_coco
from detection.evaluation.matches import Annotated, compressed, image_matches
from detection.evaluation.results import PER_CLASS_NAME, Truth, coco_results, write_per_class
from detection.evaluation.score import evaluate_coco
from engine.records.results_file import ImageResult
from metrics.coco_ap import ap_from_matches
from scenes.layouts import ScenesIndex
from tools import evaluate

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
    by_frequency = ("ap_rare", "ap_common", "ap_frequent")
    theirs |= {name: 100 * value for name, value in zip(by_frequency, evaluation.all_stats[-3:], strict=True)}
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


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_numbers_are_those_of_lvis_api(
    kind: Any, data: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package of LVIS's authors, which nothing else here needs."""
    monkeypatch.setattr(np, "float", float, raising=False)  # it was written for NumPy below 1.24
    lvis = pytest.importorskip("lvis", reason="pip install --no-deps lvis opencv-python-headless")
    truth, detections = (json.loads(json.dumps(part)) for part in data)
    for item in (*truth["annotations"], *detections):
        x, y, width, height = item["bbox"]
        polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        mask = compressed(polygon, height=240, width=240)
        item["segmentation"] = {**mask, "counts": mask["counts"].decode()} if "score" in item else polygon
        if "score" in item and kind == "segm":
            del item["bbox"]  # or it would take areas of boxes for those of masks, as detectron2 knows
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(truth))
    evaluation = lvis.LVISEval(lvis.LVIS(str(path)), detections, kind)
    evaluation.run()
    names = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_small", "APm": "ap_medium", "APl": "ap_large"}
    names |= {"APr": "ap_rare", "APc": "ap_common", "APf": "ap_frequent", "AR@300": "ar300"}
    ours = evaluate_coco(truth, detections, kind=kind).summary
    theirs = {name: 100 * evaluation.get_results()[key] for key, name in names.items()}
    assert {name: ours[name] for name in names.values()} == pytest.approx(theirs, abs=1e-9)


def test_ap_by_frequency() -> None:
    """Rare: one class found and one that is not there; common: one found and one missed; frequent: half found."""
    annotations = [
        {"id": n, "image_id": image, "category_id": kind, "bbox": [0, 0, 100, 100], "area": 10_000.0, "iscrowd": 0}
        for n, (image, kind) in enumerate([(1, 1), (1, 3), (1, 4), (1, 5), (2, 5)], start=1)
    ]
    truth = {
        "images": [
            {"id": n, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
            for n in (1, 2)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": str(n), "frequency": f} for n, f in enumerate("rrccf", start=1)],
    }
    found = [{"image_id": 1, "category_id": n, "bbox": [0, 0, 100, 100], "score": 0.9} for n in (1, 3, 5)]
    scores = evaluate_coco(truth, found, kind="bbox")
    # half of the objects are found without a mistake: recalls 0 to 0.5 are 51 of 101
    half = 100 * 51 / 101
    assert scores.class_ap == pytest.approx({"1": 100.0, "3": 100.0, "4": 0.0, "5": half})
    summary = scores.summary
    assert (summary["ap_rare"], summary["ap_common"], summary["ap_frequent"]) == pytest.approx((100.0, 50.0, half))
    assert summary["ap"] == pytest.approx((100 + 100 + 0 + half) / 4)
    assert scores.class_frequency == ("rare", "rare", "common", "common", "frequent")
    # nothing rare is there to be found, and nothing is said of frequencies without LVIS's lists of absent categories
    without = {**truth, "annotations": annotations[1:]}
    assert "ap_rare" not in evaluate_coco(without, found[1:], kind="bbox").summary
    plain = {**truth, "images": [{"id": n, "height": 100, "width": 100} for n in (1, 2)]}
    assert "ap_rare" not in evaluate_coco(plain, found, kind="bbox").summary


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


def test_a_split_of_lvis_is_scored_so(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file to the scores and to the matches that a results file keeps."""
    content = json.loads((few_scenes.coco / "annotations" / "instances_val2017.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    for number, category in enumerate(content["categories"]):
        category["frequency"] = "rcf"[number % 3]
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
    scores = truth.scores(results)
    summary = scores["box"].summary
    assert 0 < summary["ap"] < 100 and "ar300" in summary and {"ap_rare", "ap_common", "ap_frequent"} <= set(summary)
    header, *lines = write_per_class(tmp_path / PER_CLASS_NAME, scores).read_text().splitlines()
    assert header == "name,frequency,box_ap" and [line.split(",")[1] for line in lines[:3]] == [
        "rare",
        "common",
        "frequent",
    ]
    detections = tmp_path / "detections.json"
    detections.write_text(json.dumps(coco_results(results)))
    assert evaluate.main(["coco", "--annotations", str(path), "--detections", str(detections)]) == 0
    printed = capsys.readouterr().out
    assert f"box_ap_rare {summary['ap_rare']:.4f}\nbox_ap_common {summary['ap_common']:.4f}\n" in printed
    rows = [result.values["box_matches"] for result in results]
    assert ap_from_matches(rows, [1] * len(rows)) == pytest.approx(summary["ap"], abs=1e-9)
