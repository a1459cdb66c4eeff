"""Images without objects as background: in the data, and through the losses of every head."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detection.config import DetectionConfig
from detection.task import DetectionTask, build_task
from engine.training.seeding import seed_all, seeded
from scenes.layouts import ScenesIndex
from tools.train_det import main


@pytest.fixture
def emptied(few_scenes: ScenesIndex, tmp_path: Path) -> Path:
    """Training annotations of which the first two images have no object and the third a crowd alone."""
    content = json.loads((few_scenes.coco / "annotations" / "instances_train2017.json").read_text())
    ids = sorted(image["id"] for image in content["images"])
    kept = [a for a in content["annotations"] if a["image_id"] not in ids[:2]]
    for annotation in kept:
        annotation["iscrowd"] = int(annotation["image_id"] == ids[2])
    path = tmp_path / "train.json"
    path.write_text(json.dumps({**content, "annotations": kept}))
    return path


def task_of(config: DetectionConfig, data: Path, path: Path) -> DetectionTask:
    seed_all(0)
    return build_task(replace(config, train_json=str(path), flip=False, scale_jitter=(1.0, 1.0)), data=data, init=None)


def test_they_are_left_out_unless_asked_for(
    small_config: DetectionConfig, few_scenes: ScenesIndex, emptied: Path
) -> None:
    without = task_of(small_config, few_scenes.coco, emptied)
    kept = task_of(replace(small_config, empty_images=True), few_scenes.coco, emptied)
    assert (len(without.train_data), len(kept.train_data)) == (9, 11)
    assert "train2017: images without an object, not trained on: 3 of 12" in without.facts.data_notes
    notes = [note for note in kept.facts.data_notes if "without an object" in note]
    assert notes == [
        "train2017: images without an object, not trained on: 1 of 12",
        "train2017: images without an object, trained on as background: 2 of 12",
    ]


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_batches_with_empty_images_train(
    cascade: bool, masks: bool, small_config: DetectionConfig, few_scenes: ScenesIndex, emptied: Path, tmp_path: Path
) -> None:
    if not masks:
        content = json.loads(emptied.read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        emptied.write_text(json.dumps(content))
    config = replace(small_config, empty_images=True, heads=replace(small_config.heads, cascade=cascade))
    task = task_of(config, few_scenes.coco, emptied)
    task.model.train()
    with seeded(0):
        samples = [task.train_data[n] for n in range(4)]
    assert [len(sample["instances"]) > 0 for sample in samples] == [False, False, True, True]
    for batch in (samples[:2], samples[1:]):
        with seeded(1):
            losses = task.model(task.collate(batch))
        assert ("loss_mask" in losses) == masks
        total = sum(losses.values())
        assert torch.isfinite(total)
        task.model.zero_grad()
        total.backward()
        gradients = [p.grad for p in task.model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
def test_the_flag(few_scenes: ScenesIndex, emptied: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--data", str(few_scenes.coco), "--train-json", str(emptied), "--steps", "2", "--batch-size", "2"]
    assert main(["tiny", *flags, "--empty-images", "--workers", "0", "--out", str(out)]) == 0
    record = json.loads((out / "record.json").read_text())
    assert any("trained on as background: 2 of 12" in note for note in record["data_notes"])
