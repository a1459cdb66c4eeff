"""COCO and LVIS annotations of any damage: refused by name, or read so that perfect detections score 100."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.data.coco import CocoSplit, read_coco
from detection.evaluation.matches import KINDS, compressed
from detection.evaluation.score import evaluate_coco

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
TWO = [[40, 5, 60, 5, 60, 20.5, 40, 20.5], [42, 30, 58, 30, 50, 44]]
RUNS = {"size": [48, 64], "counts": [0, 10, 3062]}
PACKED = {"size": [48, 64], "counts": compressed(SQUARE, height=48, width=64)["counts"].decode()}


def content(rng: random.Random, *, lvis: bool) -> dict[str, Any]:
    """Return a small whole file; half of them have ids that are text."""
    text = rng.random() < 0.5
    ids: list[Any] = ["a", "b", "c"] if text else [1, 2**63 + 100, 2**63 + 200]
    classes: list[Any] = ["x", "y"] if text else [3, 90]
    shapes = [
        (0, 0, SQUARE, [10, 10, 20, 20], 400.0, 0),
        (0, 1, TWO, [40, 5, 20, 39], 422.0, 0),
        (1, 0, PACKED, [10, 10, 20, 20], 400, 0),
        (1, 1, RUNS, [0, 0, 1, 10], 10, 1),
        (2, 1, SQUARE, [10, 10, 20, 20], None, 0),
    ]
    annotations = []
    for number, (image, kind, mask, box, area, crowd) in enumerate(shapes, start=1):
        item = {"id": number, "image_id": ids[image], "category_id": classes[kind], "bbox": box, "segmentation": mask}
        annotations.append(item | ({"area": area} if area else {}) | ({} if lvis else {"iscrowd": crowd}))
    images = [{"id": i, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n, i in enumerate(ids)]
    categories = [{"id": i, "name": f"class {n}"} for n, i in enumerate(classes)]
    if lvis:
        for number, image in enumerate(images):
            image |= {"neg_category_ids": classes[: number % 2], "not_exhaustive_category_ids": classes[number:]}
        for number, category in enumerate(categories):
            category["frequency"] = "rf"[number]
    return {"images": images, "annotations": annotations, "categories": categories}


def check_perfect(split: CocoSplit) -> None:
    """Raise AssertionError where the objects themselves, written as results, do not score 100 in every range."""
    truth = split.ground_truth
    sizes = {image["id"]: image for image in truth["images"]}
    detections = []
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"]:
            found = {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
            if split.masks:
                image = sizes[annotation["image_id"]]
                mask = compressed(annotation["segmentation"], height=image["height"], width=image["width"])
                counts = mask["counts"]
                found["segmentation"] = {**mask, "counts": counts if isinstance(counts, str) else counts.decode()}
            detections.append(found)
    detections = json.loads(json.dumps(detections))
    for kind in KINDS if split.masks else KINDS[:1]:
        summary = evaluate_coco(truth, detections, kind=kind).summary
        values = {name: value for name, value in summary.items() if name.startswith("ap")}
        assert values["ap"] > 99.999 and min(values.values()) > 99.999, (kind, values)


@pytest.fixture
def reader(tmp_path: Path) -> Callable[[bytes], None]:
    """Reads bytes as the annotations f.json of three images that are there."""
    (tmp_path / "train").mkdir()
    for number in range(3):
        (tmp_path / "train" / f"{number}.jpg").touch()
    path = tmp_path / "f.json"

    def read(text: bytes) -> None:
        path.write_bytes(text)
        split = read_coco(path, data=tmp_path, split="train")
        for image in split.store.image_ids:
            assert type(image) in (int, str)
        for record in split.records:
            inside = os.path.normpath(record["file_name"])
            assert inside.startswith(str(tmp_path)), record["file_name"]
        check_perfect(split)

    return read


def test_coco(campaign: Any, damaged_json: Any, reader: Any) -> None:
    campaign.run(lambda rng: damaged_json(rng, content(rng, lvis=False)), reader, cases=300, names="f.json")


def test_lvis(campaign: Any, damaged_json: Any, reader: Any) -> None:
    campaign.run(lambda rng: damaged_json(rng, content(rng, lvis=True)), reader, cases=300, names="f.json")
