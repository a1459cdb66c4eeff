"""Images that are all length, in training, evaluation and prediction."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.images.file import VARIABLE, UnreadableImageError
from engine.training.seeding import seeded
from segmentation.data.labels import IGNORED, LabelMapping
from segmentation.data.mapping import image_pipeline, train_pipeline, val_pipeline
from segmentation.evaluation.predictions import draw_overlay

SIZES = [(12, 2400), (2400, 12), (1, 1), (1, 5000), (5000, 1)]  # height, width
PALETTE = np.array([[10, 20, 30], [200, 20, 30]], np.uint8)
PLAIN = LabelMapping((0, 1, *[IGNORED] * 254), "")


@pytest.fixture(params=SIZES, ids=str)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    height, width = request.param
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(random.integers(0, 2, (height, width), np.uint8)).save(tmp_path / "labels.png")
    paths = {"img_path": str(tmp_path / "a.png"), "seg_map_path": str(tmp_path / "labels.png")}
    return {"image_id": "a.png", **paths, "seg_fields": [], "size": (height, width)}


def test_they_are_trained_on(files: dict[str, object]) -> None:
    files.pop("size")
    steps = train_pipeline(PLAIN, crop=(32, 32), resize=(128, 32), resize_ratio=(0.5, 2.0), cat_max_ratio=0.75)
    for seed in range(4):
        sample = dict(files, seg_fields=[])
        with seeded(seed):
            for step in steps:
                sample = step(sample)
        shape = sample["inputs"].shape[1:]
        assert sample["data_samples"].gt_sem_seg.data.shape[1:] == shape and 1 <= min(shape) <= max(shape) <= 32


def test_a_resize_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    Image.new("RGB", (200, 60)).save(tmp_path / "a.png")
    for scale, seen_at, new in (
        ((4000, 400), 1.0, None),
        ((4000, 1200), 1.0, "4000 x 1200"),
        ((1000, 300), 2.0, "2000 x 600"),
    ):
        sample = {"img_path": str(tmp_path / "a.png"), "image_id": "a.png"}
        read, fit, *_ = image_pipeline(resize=scale, seen_at=seen_at)
        if new is None:
            assert fit(read(sample))["img"].shape == (400, 1333, 3)
            continue
        says = rf"a\.png: unreadable image \(200 x 60 pixels, .*makes {new}; more than 1 megapixels.*--max-megapixels N"
        with pytest.raises(UnreadableImageError, match=says):
            fit(read(sample))


def test_they_are_evaluated_and_predicted(files: dict[str, object], tmp_path: Path) -> None:
    size = files.pop("size")
    for steps in (val_pipeline(PLAIN, resize=(128, 32)), image_pipeline(resize=(128, 32))):
        sample = dict(files, seg_fields=[])
        for step in steps:
            sample = step(sample)
        assert min(sample["inputs"].shape[1:]) >= 1 and sample["data_samples"].ori_shape == size
    label_HW = np.zeros(size, np.uint8)
    path = draw_overlay(
        tmp_path / "out.png", Path(str(files["img_path"])), label_HW, names=["$a$ $", "b"], palette_C3=PALETTE
    )
    assert path.stat().st_size > 1000
