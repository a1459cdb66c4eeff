"""Repeat factors against detectron2's, by hand, and the view of the data that they make."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler
from PIL import Image

from detection.config import DetectionConfig
from detection.data.coco import CocoSplit, read_coco
from detection.data.mapping import Repeats, train_data
from detection.data.repeat import images_of_classes, repeat_factors, repeated
from detection.task import DetectionTask


def make_split(root: Path, classes_of_images: list[list[int]], *, classes: int) -> CocoSplit:
    (root / "train").mkdir()
    Image.new("RGB", (32, 32)).save(root / "train" / "all.png")
    annotations: list[dict[str, Any]] = []
    for image, found in enumerate(classes_of_images, start=1):
        for number in found:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 10 + number, "bbox": [1, 1, 9, 9]}
            )
    images = [
        {"id": n, "file_name": "all.png", "height": 32, "width": 32} for n in range(1, len(classes_of_images) + 1)
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 10 + n, "name": f"class {n}"} for n in range(classes)],
    }
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return read_coco(path, data=root, split="train")


def test_factors_by_hand() -> None:
    # class 0 in all four images, class 1 in one: sqrt(1 / (1 / 4)) = 2
    pairs = np.array([[0, 0], [1, 0], [2, 0], [2, 1], [3, 0]])
    assert images_of_classes(pairs, classes=3).tolist() == [4, 1, 0]
    assert repeat_factors(pairs, images=4, classes=3, threshold=1.0).tolist() == [1, 1, 2, 1]
    assert repeat_factors(pairs, images=4, classes=3, threshold=0.25).tolist() == [1, 1, 1, 1]


def test_factors_are_detectron2s(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    # few images have the last classes; an image may have several objects of one class, and one has none
    probability = 0.5 ** np.arange(1, 9)
    drawn = [np.flatnonzero(random.random(8) < probability).repeat(2).tolist() for _ in range(400)]
    split = make_split(tmp_path, [found or [0] for found in drawn], classes=9)
    records = split.records
    ours = repeat_factors(records.image_classes, images=len(records), classes=9, threshold=0.1)
    theirs = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(list(records), 0.1)
    assert ours == pytest.approx(theirs.numpy(), rel=1e-6) and ours.max() > 2


def test_fractions_are_chances() -> None:
    factor_I = np.array([1.0, 2.25, 1.5])
    counts = np.array([np.bincount(repeated(factor_I, np.random.default_rng(seed))) for seed in range(4000)])
    assert set(counts[:, 0]) == {1} and set(counts[:, 1]) == {2, 3} and set(counts[:, 2]) == {1, 2}
    # four standard deviations of a mean of 4,000 chances of 1/2: 0.032
    assert counts.mean(axis=0) == pytest.approx(factor_I, abs=0.032)
    assert (
        repeated(factor_I, np.random.default_rng(3)).tolist() == repeated(factor_I, np.random.default_rng(3)).tolist()
    )


def test_rare_images_come_more_often(tmp_path: Path) -> None:
    split = make_split(tmp_path, [[0], [], [0, 1], [0], [0]], classes=2)
    settings: dict[str, Any] = {"image_size": 32, "scale_jitter": (1.0, 1.0), "flip": False, "masks": False}
    plain, notes = train_data(split, **settings)
    assert len(plain) == 4 and notes == ("train: images without an object, not trained on: 1 of 5",)
    data, notes = train_data(split, **settings, repeats=Repeats(threshold=1.0, seed=0))
    assert [data.records[n]["image_id"] for n in range(len(data))] == [1, 3, 3, 4, 5]
    assert notes[1] == "train: images repeated for a class rarer than 1: 1 of 4; a pass over the data is 5 images"
    assert data[2]["instances"].gt_classes.tolist() == [0, 1]


def test_the_federated_loss_counts_the_images_that_are_trained_on(
    small_config: DetectionConfig, tmp_path: Path
) -> None:
    """Half of eight images: those of the two rare classes, and of class 0 four, one of them twice as it is repeated."""
    split = make_split(tmp_path, [[0], [0], [0, 1], [0], [0, 2], [0], [0], [0]], classes=4)
    heads = replace(small_config.heads, classifier="federated")
    config = replace(small_config, heads=heads, label_fraction=0.5, repeat_threshold=1.0)
    task = DetectionTask(config, train=split, val=split, data=tmp_path, init=None)
    numbers = [task.train_data.records[n]["image_id"] for n in range(len(task.train_data))]
    assert len(set(numbers)) == 4 and {3, 5} < set(numbers) and len(numbers) == 6  # 3 and 5 twice
    predictor = task.model.roi_heads.box_predictor
    assert (predictor.fed_loss_cls_weights**2).tolist() == [4, 1, 1, 0]  # of all images: 8, 1, 1, 0
