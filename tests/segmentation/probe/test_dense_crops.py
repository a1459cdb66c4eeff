"""A memory of random crops: boxes, image and label map cut alike, and the plain memory where a crop is the whole."""

import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from segmentation.data.layout import open_folder
from segmentation.probe import run
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.crops import CropBoth, crop_of, draw_box
from segmentation.probe.memory import Memory
from segmentation.probe.patches import split_images
from tests.segmentation.probe.dense_samples import TINY
from tools import probe_dense

SMALL = DenseProbeConfig(backbone=TINY, memory=200, linear_iterations=5)
POSITION_ALONE = re.compile(r"position(_k\d+)?")
WHOLE = replace(SMALL, augmentation_epochs=1, crop_scale=(1.0, 1.0))


@pytest.fixture
def scenes(few_scenes: ScenesIndex, tmp_path: Path) -> Path:
    return copytree(few_scenes.ade20k, tmp_path / "ade20k")


def probed(data: Path, out: Path, config: DenseProbeConfig, said: list[str] | None = None) -> dict[str, Any]:
    say = (lambda _: None) if said is None else said.append
    made = run.run_dense_probes(config, data=data, init=None, out=out, cache=out.parent / "cache", say=say)
    return {record.task: record for record in made}


def test_boxes() -> None:
    rng = np.random.default_rng(0)
    boxes = [draw_box((300, 800), (0.25, 0.81), rng) for _ in range(400)]
    for box in boxes:
        assert box.top >= 0 and box.top + box.height <= 300 and box.left >= 0 and box.left + box.width <= 800
        share, aspect = box.height * box.width / 240_000, box.width / box.height * 300 / 800
        assert 0.25 - 0.005 <= share <= 0.81 + 0.005 and 0.74 <= aspect <= 1.35  # of whole pixels
    shares = [box.height * box.width / 240_000 for box in boxes]
    assert min(shares) < 0.3 and max(shares) > 0.7
    assert {draw_box((7, 1000), (1, 1), rng) for _ in range(20)} == {(0, 0, 7, 1000)}  # no other shape fits in
    assert {(box.height, box.width) for box in (draw_box((1, 9), (0.01, 0.02), rng) for _ in range(20))} == {(1, 1)}


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_label_map_are_cut_alike(flip: bool) -> None:
    code = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)  # every pixel says where it is from
    mirrored = 0
    for sample in range(20):
        given = {"img": np.stack([code] * 3, axis=2), "gt_seg_map": code, "sample_idx": sample}
        made = CropBoth((0.3, 0.6), flip=flip, seed=4).transform(given)
        label = made["gt_seg_map"]
        assert np.array_equal(made["img"], np.stack([label] * 3, axis=2))
        again = CropBoth((0.3, 0.6), flip=flip, seed=4).transform({**given, "img": code, "gt_seg_map": code})
        assert np.array_equal(again["gt_seg_map"], label)
        seen = label if label[0, 1] > label[0, 0] else label[:, ::-1]
        mirrored += seen is not label
        top, left = divmod(int(seen[0, 0]), 20)
        assert np.array_equal(seen, code[top : top + len(label), left : left + label.shape[1]])
    assert 3 < mirrored < 17 if flip else mirrored == 0


def test_samples_of_two_crops(scenes: Path) -> None:
    config = replace(SMALL, augmentation_epochs=2, seed=3)
    folder = open_folder(scenes)
    made = split_images(config, folder.train, folder.classes, crop_of(config))
    assert len(made) == 2 * len(folder.train.pairs)
    one, two = made[1], made[1 + len(folder.train.pairs)]
    assert one["pixels"].shape == two["pixels"].shape == (3, 32, 48)
    assert not np.array_equal(one["pixels"], two["pixels"])
    for other, equal in ((config, True), (replace(config, seed=4), False)):
        again = split_images(other, folder.train, folder.classes, crop_of(other))[1]
        assert np.array_equal(again["pixels"], one["pixels"]) == equal
        assert np.array_equal(again["labelled"], one["labelled"]) or not equal


def test_crops_that_are_whole_images_are_the_plain_memory(scenes: Path, tmp_path: Path) -> None:
    plain, whole = (probed(scenes, tmp_path / name, config) for name, config in (("a", SMALL), ("b", WHOLE)))
    for task, record in plain.items():
        assert whole[task].metrics == record.metrics
        assert whole[task].results_sha256 == record.results_sha256 and whole[task].run_id != record.run_id


def test_records_say_what_was_cut(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sorted((scenes / "images" / "training").iterdir())[1].write_bytes(b"no image")
    held: list[Memory] = []
    readouts = run.Readouts
    monkeypatch.setattr(run, "Readouts", lambda *given: held.extend(given[1:3]) or readouts(*given))
    config = replace(SMALL, augmentation_epochs=2, crop_scale=(0.3, 0.9), crop_flip=True, seed=5, memory=1000)
    said: list[str] = []
    made = probed(scenes, tmp_path / "out", config, said)
    record = read_record(tmp_path / "out" / "knn_segmentation")
    assert any("features of 22 crops of images of split training" in line for line in said)
    note = "memory drawn from 2 random crop(s) of each training image, 0.3 to 0.9 of its area, half of them mirrored, "
    assert any(line.startswith(note + "seed 5; ") for line in record.data_notes)
    assert any(line.startswith(f"memory: {22 * 24} of {22 * 24} training patches") for line in record.data_notes)
    assert (record.config["augmentation_epochs"], record.config["crop_scale"], record.config["seed"]) == (
        2, [0.3, 0.9], 5
    )  # fmt: skip
    assert len(record.unreadable_images) == 1 and record.train_images == 12
    cut, whole = held
    assert len(cut.image_M) == 2 * len(whole.image_M) and {*cut.image_M} == {*whole.image_M} == {*range(12)} - {1}
    plain = probed(scenes, tmp_path / "plain", replace(SMALL, seed=5, memory=1000))
    for task, other in plain.items():  # what needs no feature is of the whole images
        beside = {"class_prior", "mean_label_map", *(name for name in other.metrics if POSITION_ALONE.fullmatch(name))}
        assert len(beside) == (6 if task == "knn_segmentation" else 3)
        assert {name: made[task].metrics[name] for name in beside} == {name: other.metrics[name] for name in beside}
        assert made[task].metrics["miou"] != other.metrics["miou"]


def test_a_part_of_the_memory_trains_the_linear_classifiers(scenes: Path, tmp_path: Path) -> None:
    part = probed(scenes, tmp_path / "part", replace(SMALL, linear_memory=60))
    small, whole = (probed(scenes, tmp_path / str(size), replace(SMALL, memory=size)) for size in (60, 200))
    assert part["linear_segmentation"].metrics == small["linear_segmentation"].metrics
    assert part["knn_segmentation"].metrics == whole["knn_segmentation"].metrics != small["knn_segmentation"].metrics


def test_the_tool_searches_by_faiss(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    flags = ["vit_demo_patch8", "--data", str(scenes), "--image-size", "32", "40", "--linear-iterations", "1"]
    flags += ["--memory", "100", "--augmentation-epochs", "1", "--crop-scale", "0.6", "1", "--crop-flip"]
    made = {}
    for search in ("exact", "faiss"):
        out, cache = tmp_path / search, str(tmp_path / "cache")
        assert probe_dense.main([*flags, "--search", search, "--cache", cache, "--out", str(out)]) == 0
        made[search] = read_record(out / "knn_segmentation")
    assert made["faiss"].config["search"] == "faiss" and "faiss-cpu" in made["faiss"].libraries
    for name, value in made["exact"].metrics.items():
        if not name.startswith("position"):  # many positions are equally near
            assert made["faiss"].metrics[name] == pytest.approx(value, abs=0.2), name  # a pixel in 500 may turn
