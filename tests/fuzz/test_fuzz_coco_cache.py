"""The cache of a large annotation file with a bit flipped anywhere: it is made again, and nothing else comes out."""

import json
from pathlib import Path
from typing import Any

import pytest

from detection.data import coco
from detection.data.coco import read_coco

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
RUNS = {"size": [48, 64], "counts": [0, 10, 3062]}


def test_coco_cache(flips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "CACHED_FROM", 0)
    (tmp_path / "train").mkdir()
    path = tmp_path / "train.json"
    plain = {"category_id": 3, "bbox": [10, 10, 20, 20], "area": 400.0, "iscrowd": 0}
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, **plain, "segmentation": SQUARE},
            {"id": 2, "image_id": 2, **plain, "segmentation": RUNS, "bbox": [0, 0, 1, 10]},
        ],
        "categories": [{"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    for number in (1, 2):
        (tmp_path / "train" / f"{number}.jpg").touch()
    right = read_coco(path, data=tmp_path, split="train").ground_truth
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()

    def use() -> Any:
        damaged = kept.read_bytes() != whole
        split = read_coco(path, data=tmp_path, split="train")
        assert damaged == any("cache not usable, read again: " in note for note in split.notes)
        return split.ground_truth

    assert use() == right
    outcomes = flips.run([kept], use, cases=300)
    assert kept.read_bytes() == whole and outcomes["equal"] > 0
