"""Notes of scenes, COCO files to be divided and lines of results, of any damage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.study.hold_out import HoldOut, hold_out
from mae_transfer.tasks import TASKS
from scenes.config import SceneCounts, ScenesConfig
from scenes.layouts import write_scenes

COCO = {
    "info": {"year": 1},
    "images": [{"id": k, "file_name": f"{k}.jpg", "width": 4, "height": 3} for k in (3, 4, "5")],
    "annotations": [{"id": k, "image_id": 3, "bbox": [0, 0, 1, 1], "category_id": 1} for k in (1, 2)],
    "categories": [{"id": 1, "name": "cat"}],
}
LINES: dict[str, list[dict[str, Any]]] = {
    "classification": [{"label": 1, "top5": [1, 2, 3, 4, 5]}, {"label": 0, "top5": [1, 0]}],
    "detection": [
        {
            name: {"objects": [[0, 1], [3, 2]], "detections": [[0, 0.9, 1023, 0], [3, 0.5, 1, 2]]}
            for name in ("box_matches", "mask_matches")
        },
        {name: {"objects": [], "detections": []} for name in ("box_matches", "mask_matches")},
    ],
    "segmentation": [{"confusion": [[0, 0, 5], [1, 0, 5]]}, {"confusion": [[1, 1, 2]]}],
}


def test_note_of_scenes(campaign: Any, damaged_json: Any, tmp_path: Path) -> None:
    counts = SceneCounts(classify_train=8, classify_val=8, classify_test=8, dense_train=1, dense_val=1, dense_test=1)
    config = ScenesConfig(counts=counts)
    out = tmp_path / "scenes"
    index = write_scenes(out, config)
    whole = json.loads((out / "scenes.json").read_text())

    def read(content: bytes) -> None:
        (out / "scenes.json").write_bytes(content)
        assert write_scenes(out, config) == index

    campaign.run(lambda rng: damaged_json(rng, whole), read, cases=100, names=str(out))


def test_coco_to_be_divided(campaign: Any, damaged_json: Any, tmp_path: Path) -> None:
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/instances_train2017.json"
    number = 0

    def read(content: bytes) -> None:
        nonlocal number
        number += 1
        path.write_bytes(content)
        out = tmp_path / f"out{number}"
        hold_out(HoldOut(tool="train_det", data=tmp_path, share=0.4), out)
        whole = json.loads(content)
        parts = [json.loads((out / f"annotations/instances_{n}.json").read_text()) for n in ("train2017", "val2017")]
        assert len(parts[1]["images"]) >= 1 and len(parts[0]["images"]) >= 1
        ids = [item["id"] for part in parts for item in part["images"]]
        assert sorted(map(str, ids)) == sorted(str(item["id"]) for item in whole["images"])

    campaign.run(lambda rng: damaged_json(rng, COCO), read, cases=200, names=path.name)


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_results(campaign: Any, damaged_value: Any, kind: str) -> None:
    """Accepted lines give finite numbers or none, of the shape that was asked for."""

    def read(lines: list[Any]) -> None:
        if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
            raise ValueError("line: no object")  # refused before, by the reader of the file
        resampled = TASKS[kind].scores[0].resampler
        assert resampled is not None
        resampler = resampled(lines)
        for value_R in resampler(np.ones((2, len(lines)), dtype=np.int64)).values():
            assert value_R.shape == (2,) and not (value_R > 100.0001).any() and not (value_R < 0).any()

    campaign.run(lambda rng: damaged_value(rng, LINES[kind]), read, cases=300, names="")
