"""A user's own augmentation in every task: where it is applied, and that it changes nothing else."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.training.loop
from classification.spec import CLASSIFICATION
from engine.augment import with_augment
from engine.launch import carry_out, configured
from engine.records.record import read_record
from engine.runs.reopen import Asked, reevaluate
from engine.training.resume import checkpoints
from engine.training.seeding import seed_all, seeded
from files.digest import file_sha256
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tests.smaller import distinct, smaller
from tools import train_cls

FUNCTIONS = """
import numpy as np

def same(sample, rng):
    return sample

def red(sample, rng):  # of uint8 RGB, whatever the task
    assert sample.image.dtype == np.uint8 and sample.image.shape[2] == 3 and sample.image.flags.writeable
    sample.image[:] = [200, 100, 0]
    return sample

def mirrored(sample, rng):
    width = sample.image.shape[1]
    sample.image = sample.image[:, ::-1]
    if hasattr(sample, "label_map"):
        sample.label_map = sample.label_map[:, ::-1]
    if hasattr(sample, "boxes"):
        sample.boxes = np.stack([width - sample.boxes[:, 2], sample.boxes[:, 1], width - sample.boxes[:, 0],
                                 sample.boxes[:, 3]], axis=1)
        sample.masks = sample.masks[:, :, ::-1]
    if hasattr(sample, "label"):
        sample.label = 0
    return sample

def noise(sample, rng):
    sample.image = sample.image + rng.integers(0, 9, sample.image.shape, dtype=np.uint8)
    return sample

def stops(sample, rng):
    raise RuntimeError("called")
"""
DATA = {"detection": "coco", "segmentation": "ade20k"}
ONE_OF_EACH = {spec.name: key for key, (spec, _) in reversed(distinct(TASKS).items()) if spec.recipes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def build(key: str, scenes: ScenesIndex, folder: Path, function: str | None) -> Any:
    spec, recipe = distinct(TASKS)[key]
    assert spec.augments
    config = smaller(spec.recipes[recipe](), folder)
    config = with_augment(replace(config, run=replace(config.run, augment_function=function)))
    seed_all(0)
    return spec.build(config, data=scenes.root / DATA.get(spec.name, "imagenet"), init=None)


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of a sample of any task."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors(item)]
    if hasattr(value, "gt_sem_seg"):
        return [value.gt_sem_seg.data]
    if hasattr(value, "get_fields"):
        return tensors(value.get_fields())
    return [value.tensor] if hasattr(value, "tensor") else []


def samples(data: Any, count: int = 3) -> list[Any]:
    found = []
    for index in range(count):
        with seeded(index):
            found.append(data[index])
    return found


def images(key: str, sample: Any) -> list[torch.Tensor]:
    """RGB (..., 3, H, W), uint8 where nothing was normalised."""
    if key.startswith("segmentation"):
        return [sample["inputs"].flip(0)]
    return [t for t in tensors(sample) if t.ndim >= 3 and t.shape[-3] == 3 and t.dtype in (torch.uint8, torch.float32)]


@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_it_changes_training_samples_and_nothing_else(
    task: str, few_scenes: ScenesIndex, file: Path, tmp_path: Path
) -> None:
    key = ONE_OF_EACH[task]
    plain, same, red, stops = (
        build(key, few_scenes, tmp_path, function and f"{file}:{function}")
        for function in (None, "same", "red", "stops")
    )
    # the recipe's own draws are those of a run without it
    for left, right in zip(samples(plain.train_data), samples(same.train_data), strict=True):
        assert len(tensors(left)) == len(tensors(right)) > 0
        assert all(torch.equal(a, b) for a, b in zip(tensors(left), tensors(right), strict=True))
    for before, after in zip(samples(plain.train_data), samples(red.train_data), strict=True):
        seen = images(key, after)
        assert seen and [image.shape for image in seen] == [image.shape for image in images(key, before)]
        for image in seen:
            if image.dtype == torch.uint8:
                assert image.movedim(-3, -1).reshape(-1, 3).unique(dim=0).tolist() == [[200, 100, 0]]
            else:  # normalised, and erased perhaps, after it
                assert not torch.equal(image, images(key, before)[0])
    with pytest.raises(
        ValueError, match=r"^--augment-function .*mine\.py:stops: .*\.(jpg|png): it raised RuntimeError: c"
    ):
        _ = stops.train_data[0]
    for left, right in zip(samples(plain.val_data), samples(stops.val_data), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(left), tensors(right), strict=True))
    losses = red.model.train()(red.collate(samples(red.train_data, 4)))
    assert all(torch.isfinite(loss).all() for loss in losses.values())


def test_targets_go_with_the_pixels(few_scenes: ScenesIndex, file: Path, tmp_path: Path) -> None:
    for task in ("classification", "segmentation", "detection"):
        key = ONE_OF_EACH[task]
        plain, mirrored = (
            build(key, few_scenes, tmp_path, function and f"{file}:{function}") for function in (None, "mirrored")
        )
        for before, after in zip(samples(plain.train_data), samples(mirrored.train_data), strict=True):
            if task == "classification":
                assert after[1] == 0
            if task == "segmentation":
                assert torch.equal(after["inputs"], before["inputs"].flip(-1))
                assert torch.equal(
                    after["data_samples"].gt_sem_seg.data, before["data_samples"].gt_sem_seg.data.flip(-1)
                )
            if task == "detection":
                assert torch.equal(after["image"], before["image"].flip(-1))
                old, new, width = before["instances"], after["instances"], before["image"].shape[-1]
                left, top, right, bottom = old.gt_boxes.tensor.T
                assert torch.equal(new.gt_boxes.tensor, torch.stack([width - right, top, width - left, bottom], dim=1))
                assert torch.equal(new.gt_masks.tensor, old.gt_masks.tensor.flip(-1))
                assert torch.equal(new.gt_classes, old.gt_classes)


def test_views_of_one_image_draw_differently(few_scenes: ScenesIndex, file: Path, tmp_path: Path) -> None:
    plain, noisy = (
        build(ONE_OF_EACH["moco_v3"], few_scenes, tmp_path, f"{file}:{function}") for function in ("same", "noise")
    )
    (before,), (after,) = samples(plain.train_data, 1), samples(noisy.train_data, 1)
    first, second = ((b.int() - a.int()) % 256 for a, b in zip(before[:2], after[:2], strict=True))
    assert first.max() <= 8 and second.max() <= 8 and not torch.equal(first, second)


def _stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    original = engine.training.loop.train_batches

    def stopping(*args: object, **kwargs: object) -> Iterator[object]:
        for number, batch in enumerate(original(*args, **kwargs), start=1):  # type: ignore[arg-type]
            if number == batches:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(engine.training.loop, "train_batches", stopping)


@pytest.mark.slow
def test_a_run_with_it(
    few_scenes: ScenesIndex,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It resumes to the same bits with other workers, says what it was, refuses another file, and needs none later."""

    def arguments(out: str, function: str = "noise") -> list[str]:
        words = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / out), "--steps", "3"]
        return [*words, "--batch-size", "4", "--augment-function", f"{file}:{function}"]

    assert train_cls.main([*arguments("whole"), "--workers", "1"]) == 0
    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        assert train_cls.main(arguments("parts")) == 130
    text = file.read_text()
    file.write_text(text + "# another\n")
    assert train_cls.main([*arguments("parts"), "--resume"]) == 1
    said = capsys.readouterr().err
    assert (
        "config.run.augment_source: mine:noise sha256:" in said and f"-> mine:noise sha256:{file_sha256(file)}" in said
    )
    file.write_text(text)
    moved = tmp_path / "moved" / "mine.py"
    moved.parent.mkdir()
    shutil.copy(file, moved)
    words = [word.replace(str(file), str(moved)) for word in arguments("parts")]
    assert train_cls.main([*words, "--resume"]) == 0
    whole, parts = (torch.load(checkpoints(tmp_path / out)[-1], weights_only=True) for out in ("whole", "parts"))
    assert all(torch.equal(tensor, parts["model"][name]) for name, tensor in whole["model"].items())
    assert train_cls.main(arguments("same", "same")) == 0
    other = torch.load(checkpoints(tmp_path / "same")[-1], weights_only=True)
    assert not all(torch.equal(tensor, other["model"][name]) for name, tensor in whole["model"].items())
    record = read_record(tmp_path / "whole")
    source = f"mine:noise sha256:{file_sha256(file)}"
    assert record.config["run"]["augment_source"] == source
    assert f"run.augment_source: None -> {source}" in record.departures
    file.unlink()
    moved.unlink()
    assert reevaluate(tmp_path / "whole", TASKS, Asked(), say=print).metrics == record.metrics
    assert train_cls.main(arguments("gone")) == 1
    assert "mine.py is no file" in capsys.readouterr().err and not (tmp_path / "gone").exists()


def test_a_wrong_sample_ends_the_run_with_its_name(
    few_scenes: ScenesIndex, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("def wide(sample, rng):\n    sample.image = sample.image.astype(float)\n    return sample\n")
    words = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert train_cls.main([*words, "--workers", "1", "--augment-function", f"{file}:wide"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: --augment-function {file}:wide: ") and "its image is an array of float64" in line


def test_a_task_that_applies_none_refuses_it(
    few_scenes: ScenesIndex, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {name for name, spec in TASKS.items() if spec.augments} == {n for n, spec in TASKS.items() if spec.recipes}
    words = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / "run")]
    args, config = configured([*words, "--augment-function", f"{file}:same"], [CLASSIFICATION], doc=None)
    assert carry_out(args, config, replace(CLASSIFICATION, augments=False)) == 1
    assert f"--augment-function {file}:same: classification applies none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
