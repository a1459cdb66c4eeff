"""Images that are all length: trained on, evaluated, predicted and drawn as every other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.config import DetectionConfig, TestConfig
from detection.data.mapping import FitSquare, JitterScale
from detection.task import DetectionTask, build_task
from detection.trained import TrainedDetector
from engine.training.seeding import seed_all, seeded

SIZES = [(12, 2400), (2400, 12), (1, 1), (1, 5000), (5000, 1), (40, 60)]  # height, width


@pytest.fixture
def thin(tmp_path: Path) -> Path:
    """A data set of those sizes, with one object in each image."""
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES, start=1):
        name = f"{height}x{width}.png"
        for split in ("train2017", "val2017"):
            (tmp_path / split).mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        box = [0, 0, max(1, width // 2), max(1, height // 2)]
        mask = {"size": [height, width], "counts": [0, *_runs(height, width, box)]}
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": box, "area": box[2] * box[3]}
            | {"iscrowd": 0, "segmentation": mask}
        )
    categories = [{"id": 1, "name": "price in $ per $"}, {"id": 2, "name": "_hidden_"}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def _runs(height: int, width: int, box: list[int]) -> list[int]:
    mask_HW = np.zeros((height, width), bool)
    mask_HW[: box[3], : box[2]] = True
    flat = mask_HW.T.reshape(-1)
    return np.diff(np.flatnonzero(np.diff(flat, prepend=not flat[0], append=not flat[-1]))).tolist()


def build(config: DetectionConfig, data: Path, **changes: object) -> DetectionTask:
    seed_all(0)
    heads = replace(config.heads, score_threshold=0.0)
    return build_task(replace(config, heads=heads, **changes), data=data, init=None)


def test_they_are_trained_on(thin: Path, small_config: DetectionConfig) -> None:
    task = build(small_config, thin, scale_jitter=(0.1, 2.0))
    assert len(task.train_data) == len(SIZES)
    for seed in range(2):
        with seeded(seed):
            samples = [task.train_data[index] for index in range(len(SIZES))]
        assert all(min(sample["image"].shape[1:]) >= 1 for sample in samples)
        losses = task.model.train()(task.collate(samples))
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "test", [pytest.param(TestConfig(), marks=pytest.mark.slow), TestConfig(scales=(0.5, 1.0), flip=True)]
)  # the first draws them all
def test_they_are_evaluated_and_predicted(
    thin: Path, tmp_path: Path, small_config: DetectionConfig, test: TestConfig
) -> None:
    task = build(small_config, thin, test=test)
    task.model.eval()
    results = []
    with torch.no_grad():
        for index in range(len(SIZES)):
            results += task.predict(task.collate([task.val_data[index]]))
    assert set(task.score(results)) >= {"box_ap", "mask_ap"}
    if test.plain:
        pictures = task.draw(results, tmp_path / "out" / "pictures")
        assert len(pictures) == len(SIZES) + 1 and all(path.stat().st_size > 1000 for path in pictures)
    trained = TrainedDetector(task.config, model=task.model, categories=task.val.categories, masks=task.masks)
    for height, width in SIZES[:3]:
        path = thin / "val2017" / f"{height}x{width}.png"
        with torch.no_grad():
            values = trained.predict_image(path)
        assert (values["height"], values["width"]) == (height, width)
        for found in values["detections"]:
            assert found["segmentation"]["size"] == [height, width] and np.isfinite(found["bbox"]).all()
        if test.plain:
            trained.draw_image(path, values, tmp_path / "one.png")


def test_others_are_resized_as_by_detectron2() -> None:
    from detectron2.data import transforms as T

    for height, width in [(480, 640), (33, 1000), (1000, 17)]:
        image = np.zeros((height, width, 3), np.uint8)
        ours = FitSquare(512, max_size=512).get_transform(image)
        theirs = T.ResizeShortestEdge(512, max_size=512).get_transform(image)
        assert (ours.new_h, ours.new_w) == (theirs.new_h, theirs.new_w)
        sides = {"min_scale": 0.5, "max_scale": 0.5, "target_height": 512, "target_width": 512}
        both = [kind(**sides).get_transform(image) for kind in (JitterScale, T.ResizeScale)]
        assert (both[0].new_h, both[0].new_w) == (both[1].new_h, both[1].new_w)
    assert FitSquare(64, max_size=64).get_transform(np.zeros((1, 5000, 3), np.uint8)).new_h == 1
