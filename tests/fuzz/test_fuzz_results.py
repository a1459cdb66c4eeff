"""COCO results files of any damage: refused by the file's name, or scored as pycocotools scores the clean numbers."""

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.evaluation.rescore import score_files

SIZES = {1: (4, 4), 2: (20, 30), 5: (1, 40)}
BOXES = {1: [[0, 0, 4, 2]], 2: [[2, 3, 10, 8], [15, 4, 12, 12], [0, 0, 9, 9]], 5: [[3, 0, 30, 1]]}


def masked(image: int, box: list[int]) -> dict[str, Any]:
    mask_HW = np.zeros(SIZES[image], np.uint8)
    mask_HW[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    return {"size": list(SIZES[image]), "counts": rle.encode(np.asfortranarray(mask_HW))["counts"].decode()}


def truth() -> dict[str, Any]:
    annotations = [
        {"image_id": image, "category_id": 1 + number % 2, "bbox": box, "segmentation": masked(image, box)}
        for image, boxes in BOXES.items()
        for number, box in enumerate(boxes)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in SIZES.items()],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {**a, "id": n, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3]} for n, a in enumerate(annotations, 1)
        ],
    }


TRUTH = truth()
PERFECT = [
    {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9 - 0.1 * n}
    for n, a in enumerate(TRUTH["annotations"])
]
SCORED = {"image_id", "category_id", "bbox", "segmentation", "score"}


def reference(found: list[dict[str, Any]], kind: str) -> float:
    """pycocotools' AP of detections that it can take: plain numbers, masks drawn anew from their pixels."""
    shape = "bbox" if kind == "bbox" else "segmentation"
    plain = []
    for item in found:
        value = item[shape]
        if kind == "segm":
            height, width = SIZES[int(item["image_id"])]
            if isinstance(value["counts"], list):
                value = rle.frPyObjects({**value, "size": [height, width]}, height, width)
            value = rle.encode(np.asfortranarray(rle.decode({**value, "size": [height, width]})))
        plain.append({key: float(item[key]) for key in ("image_id", "category_id", "score")} | {shape: value})
    if not plain:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps({**TRUTH, "info": {}}))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(plain), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    return tmp_path / "truth.json", tmp_path / "found.json"


def test_results_file(campaign: Any, damaged_json: Any, files: tuple[Path, Path]) -> None:
    annotations, path = files

    def read(text: bytes) -> None:
        path.write_bytes(text)
        done = score_files(annotations, path)
        found = json.loads(text)
        for kind, one in done.scores.items():
            expected = reference(found, {"box": "bbox", "mask": "segm"}[kind])
            assert abs(one.summary["ap"] - expected) < 1e-9, (kind, one.summary["ap"], expected, text)

    campaign.run(lambda rng: damaged_json(rng, PERFECT), read, cases=150, names="found.json")


def test_masks_of_any_text(campaign: Any, damaged_bytes: Any, files: tuple[Path, Path]) -> None:
    """Damage to run lengths alone: neither a crash nor a hang, and what is accepted is the mask that it says."""
    annotations, path = files

    def case(rng: random.Random) -> list[dict[str, Any]]:
        number = rng.randrange(len(PERFECT))
        mask = PERFECT[number]["segmentation"]
        counts: Any = damaged_bytes(rng, mask["counts"].encode()).decode("latin-1")
        if rng.random() < 0.3:  # of the right total, with runs of no pixel
            pixels = mask["size"][0] * mask["size"][1]
            cuts = sorted(rng.choice((0, pixels, rng.randrange(pixels))) for _ in range(rng.randrange(6)))
            counts = [end - start for start, end in zip([0, *cuts], [*cuts, pixels], strict=True)]
        elif rng.random() < 0.3:
            counts = [rng.choice((0, 0, 1, 2, 4, 8, 16, rng.randrange(-2, 99))) for _ in range(rng.randrange(8))]
        elif rng.random() < 0.3:
            counts = "".join(chr(rng.randrange(48, 112)) for _ in range(rng.randrange(1, 9)))
        return [{**d, "segmentation": {**mask, "counts": counts}} if d is PERFECT[number] else d for d in PERFECT]

    def read(found: list[dict[str, Any]]) -> None:
        path.write_text(json.dumps(found))
        done = score_files(annotations, path)
        assert done.scores["box"].summary["ap"] == 100
        assert abs(done.scores["mask"].summary["ap"] - reference(found, "segm")) < 1e-9

    campaign.run(case, read, cases=150, names="found.json")


def test_what_is_not_scored_changes_nothing(campaign: Any, damaged_value: Any, files: tuple[Path, Path]) -> None:
    """Perfect detections stay at 100 whatever stands in the fields that are not scored, and in any order."""
    annotations, path = files
    more = {"id": 3, "area": 5.0, "iscrowd": 0, "category": "cat", "keypoints": [1, 2, 3], "rle": {"size": [1, 2]}}

    def case(rng: random.Random) -> list[dict[str, Any]]:
        found = []
        for item in rng.sample(PERFECT, len(PERFECT)):
            other = damaged_value(rng, more)
            other = other if isinstance(other, dict) else {}
            found.append({**{key: value for key, value in other.items() if key not in SCORED}, **item})
        return found

    def read(found: list[dict[str, Any]]) -> None:
        path.write_text(json.dumps(found))
        done = score_files(annotations, path)
        assert {kind: one.summary["ap"] for kind, one in done.scores.items()} == {"box": 100.0, "mask": 100.0}

    assert campaign.run(case, read, cases=150, names="found.json")["refused"] == 0
