"""Ids of any size and kind come back as the files have them."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.data import coco
from detection.data.coco import CocoSplit, read_coco
from detection.data.coco_file import read_file
from detection.evaluation.rescore import score_files
from detection.evaluation.results import Truth, coco_results, write_detections
from engine.records.results_file import ImageResult

HASHES = [2**63 + 100, 2**63 + 200, 2**53 + 1, -(2**70)]
KINDS = {
    "beyond 64 bits": HASHES,
    "beyond floats": [2**62 + n for n in range(4)],
    "text": ["a", "a\0", "1", "é" * 300],
    "negative": [-1, 0, 1, 2],
}


def write(root: Path, ids: list[Any], category_ids: list[Any], *, lvis: bool) -> Path:
    """Write an image for each id with an object of every class; the box tells the image and the class."""
    (root / "train").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, image_id in enumerate(ids):
        Image.new("RGB", (64, 48)).save(root / "train" / f"{number}.png")
        image = {"id": image_id, "file_name": f"{number}.png", "height": 48, "width": 64}
        if lvis:
            image |= {"neg_category_ids": category_ids[:number], "not_exhaustive_category_ids": category_ids[:1]}
        images.append(image)
        for place, category_id in enumerate(category_ids):
            x, y = 12 * number, 11 * place
            polygon = [x, y, x + 10, y, x + 10, y + 9, x, y + 9]
            annotations.append(
                {"id": image_id, "image_id": image_id, "category_id": category_id, "iscrowd": 0, "area": 90}
                | {"bbox": [x, y, 10, 9], "segmentation": [polygon]}
            )
    categories = [{"id": category_id, "name": f"class {n}"} for n, category_id in enumerate(category_ids)]
    path = root / "ids.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def perfect(split: CocoSplit, truth: Truth) -> list[ImageResult]:
    results = []
    for record in split.records:
        found = [
            {"category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
            for a in truth.annotations(record["image_id"])
        ]
        values = {"coco_image_id": record["image_id"], "detections": found, **truth.matches(record["image_id"], found)}
        results.append(ImageResult(record["name"], values))
    return results


@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_come_back(kind: str, lvis: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file through the cache, another process, the results and a results file to the scores."""
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "CACHED_FROM", 0)
    ids, category_ids = KINDS[kind], KINDS[kind][:3]
    path = write(tmp_path, ids, category_ids, lvis=lvis)
    for split in (read_coco(path, data=tmp_path, split="train") for _ in range(2)):
        assert split.store.file is not None and split.store.image_ids == sorted(ids)
        assert [c.id for c in split.categories] == sorted(category_ids)
        by_id = {record["image_id"]: record for record in split.records}
        for number, image_id in enumerate(ids):
            assert by_id[image_id]["name"] == f"{number}.png"
            assert {a["bbox"][0] for a in by_id[image_id]["annotations"]} == {12 * number}
            if lvis:
                assert by_id[image_id]["neg_category_ids"] == category_ids[:number]
                assert by_id[image_id]["not_exhaustive_category_ids"] == category_ids[:1]
    assert pickle.loads(pickle.dumps(split.store)).image_ids == sorted(ids)
    assert pickle.loads(pickle.dumps(read_file(path))).image_ids == sorted(ids)
    truth = Truth(split, masks=False)
    results = perfect(split, truth)
    assert truth.scores(results)["box"].summary["ap"] == pytest.approx(100)
    detections = write_detections(tmp_path / "detections.json", results)
    assert json.loads(detections.read_text()) == coco_results(results)
    assert {found["image_id"] for found in json.loads(detections.read_text())} == set(ids)
    assert score_files(path, detections).scores["box"].summary["ap"] == pytest.approx(100)
