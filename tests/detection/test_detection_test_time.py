"""Copies of images and soft suppression at test time."""

import math
from dataclasses import replace

import pytest
import torch

from detection.config import DetectionConfig, TestConfig
from detection.model.test_time import Copies, soft_scores
from detection.task import DetectionTask, build_task
from engine.training.seeding import seed_all
from scenes.layouts import ScenesIndex


def build(config: DetectionConfig, scenes: ScenesIndex, test: TestConfig) -> DetectionTask:
    """The small model, the same weights each time, reporting detections of any score."""
    seed_all(0)
    heads = replace(config.heads, score_threshold=0.0)
    task = build_task(replace(config, heads=heads, test=test), data=scenes.coco, init=None)
    task.model.eval()
    return task


def test_soft_scores_by_hand() -> None:
    """Two boxes of a class with IoU 1/3, the same box of another class, one far away."""
    boxes = torch.tensor([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [50, 50, 60, 60]]).float()
    scores, classes = torch.tensor([0.8, 0.6, 0.7, 0.5]), torch.tensor([0, 0, 1, 0])
    linear = soft_scores(boxes, scores, classes, kind="linear")
    assert linear.tolist() == pytest.approx([0.8, 0.6 * 2 / 3, 0.7, 0.5])
    gaussian = soft_scores(boxes, scores, classes, kind="gaussian")
    assert gaussian.tolist() == pytest.approx([0.8, 0.6 * math.exp(-(1 / 9) / 0.5), 0.7, 0.5])
    again = soft_scores(boxes[[0, 0]], torch.tensor([0.8, 0.6]), torch.tensor([0, 0]), kind="linear")
    assert again.tolist() == pytest.approx([0.8, 0.0])


def test_soft_scores_take_the_best_remaining_box_first() -> None:
    """The second box falls below the third before it can lower it: each step looks at the scores as they are."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 6, 10, 16]]).float()
    found = soft_scores(boxes, torch.tensor([0.9, 0.8, 0.5]), torch.tensor([0, 0, 0]), kind="gaussian").tolist()
    first_second, first_third, second_third = 0.9, 40 / 160, 30 / 160
    decay = {
        name: math.exp(-(iou**2) / 0.5)
        for name, iou in zip("abc", (first_second, first_third, second_third), strict=True)
    }
    third = 0.5 * decay["b"]
    assert found == pytest.approx([0.9, 0.8 * decay["a"] * decay["c"], third])


def test_one_plain_copy_is_the_plain_answer(small_config: DetectionConfig, few_scenes: ScenesIndex) -> None:
    """Through the whole of detectron2's test-time code with one copy, boxes and masks are those of a single pass."""
    plain = build(small_config, few_scenes, TestConfig())
    wrapped = build(small_config, few_scenes, TestConfig(scales=(1.0, 1.0)))
    with torch.no_grad():
        expected = plain.predict([plain.val_data[0]])[0].values["detections"]
        found = wrapped.predict([wrapped.val_data[0]])[0].values["detections"]
    assert len(expected) == len(found) > 3
    for one, other in zip(expected, found, strict=True):
        assert other["category_id"] == one["category_id"]
        # boxes go to the original image and back through float32
        assert other["bbox"] == pytest.approx(one["bbox"], abs=1e-3)
        assert other["score"] == pytest.approx(one["score"], abs=1e-5)


@pytest.mark.parametrize("soft_nms", ["none", "linear", "gaussian"])
def test_copies_and_soft_suppression(small_config: DetectionConfig, few_scenes: ScenesIndex, soft_nms: str) -> None:
    task = build(small_config, few_scenes, TestConfig(flip=True, scales=(0.75, 1.0), soft_nms=soft_nms))  # type: ignore[arg-type]
    predictor = task.model.roi_heads.box_predictor
    before = predictor.test_nms_thresh, predictor.test_topk_per_image
    with torch.no_grad():
        results = task.predict([task.val_data[0], task.val_data[1]])
    assert (predictor.test_nms_thresh, predictor.test_topk_per_image) == before
    assert task.model.roi_heads.mask_on
    for result in results:
        found = result.values["detections"]
        assert 0 < len(found) <= small_config.heads.max_detections
        assert all(item["segmentation"]["size"] == [64, 64] for item in found)
        scores = [item["score"] for item in found]
        assert scores == sorted(scores, reverse=True)


def test_a_mirrored_image_has_mirrored_answers(small_config: DetectionConfig, few_scenes: ScenesIndex) -> None:
    """With both sides looked at, an image and its mirror image give mirrored boxes."""
    task = build(small_config, few_scenes, TestConfig(flip=True))
    sample = task.val_data[0]
    mirrored = {**sample, "image": sample["image"].flip(2)}
    with torch.no_grad():
        one, other = (task.predict([s])[0].values["detections"] for s in (sample, mirrored))
    width = sample["width"]
    for a, b in zip(one[:5], other[:5], strict=True):
        x, y, w, h = a["bbox"]
        assert b["bbox"] == pytest.approx([width - x - w, y, w, h], abs=1e-3)
        assert b["score"] == pytest.approx(a["score"], abs=1e-5)


def test_scales_that_the_position_table_is_not_for() -> None:
    with pytest.raises(ValueError, match=r"test scales \(1\.0, 1\.25\): each must be above 0 and at most 1"):
        Copies(64, scales=(1.0, 1.25), flip=False)
