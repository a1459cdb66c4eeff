"""Pre-training on tar shards is pre-training on the same images as files, for every method."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Duration
from engine.records.record import read_record
from engine.spec import spec_for
from engine.task import Task
from engine.training.data import Loading, Shard, train_batches
from engine.training.loop import fit
from engine.training.resume import checkpoints
from mae_transfer.tasks import TASKS
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.tokenizer.config import DVAEConfig
from scenes.layouts import ScenesIndex
from tools import pretrain


def built(config: Any, **given: Any) -> Any:
    """Return the task that a configuration of pre-training is of."""
    specs = [spec for spec in TASKS.values() if spec.tool == "pretrain"]
    return spec_for(specs, config).build(config, **given)


def packed(data: Path, to: Path, suffix: str = "") -> Path:
    """Write the class folders of `data` as shards of `to`, each image with a label beside it."""
    for folder in sorted(data.glob("*/*")):
        path = to / folder.parent.name / f"{folder.name}{suffix}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as shard:
            for image in sorted(folder.iterdir()):
                shard.add(image, image.name)
                shard.addfile(tarfile.TarInfo(f"{image.stem}.cls"))
    return to


@pytest.fixture
def both(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same images as files and in shards, by the same names: the files lie in folders called cat.tar, dog.tar."""
    shards = packed(data, tmp_path / "shards")
    for folder in sorted(data.glob("*/*")):
        folder.rename(folder.with_name(f"{folder.name}.tar"))
    return data, shards


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a batch."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, tuple | list) else []


def batches(task: Task, workers: int = 0) -> list[tuple[tuple[str, ...], list[Tensor]]]:
    drawn = train_batches(task, seed=3, steps=range(3), batch_size=4, shard=Shard(), loading=Loading(workers))
    return [(batch.ids, tensors(batch.data)) for batch in drawn]


def mae(config: MAEConfig, tokenizer: Path) -> MAEConfig:
    return config


def dvae(config: MAEConfig, tokenizer: Path) -> DVAEConfig:
    return DVAEConfig(run=config.run, image_size=(16, 16), vocabulary=8, downsampling=4, code_dim=4, width=8)


def beit(config: MAEConfig, tokenizer: Path) -> BEiTConfig:
    vit = replace(config.backbone, position="none")
    run, file = config.run, str(tokenizer)
    return BEiTConfig(backbone=vit, run=run, tokenizer=file, token_size=(16, 16), masked_patches=6, min_block=2)


def moco(config: MAEConfig, tokenizer: Path) -> MoCoConfig:
    return MoCoConfig(backbone=config.backbone, run=config.run, hidden=16, width=8)


@pytest.mark.parametrize("method", [mae, dvae, beit, moco])
def test_same_batches(
    method: Callable[[MAEConfig, Path], Any], both: tuple[Path, Path], mae_config: MAEConfig, tmp_path: Path
) -> None:
    files, shards = both
    made = built(dvae(mae_config, tmp_path), data=files, init=None)
    (tokenizer,) = made.finish(tmp_path)
    config = method(mae_config, tokenizer)
    of_files, of_shards = (built(config, data=data, init=None) for data in (files, shards))
    assert of_files.facts.data_notes == ()
    assert of_shards.facts.data_notes == (
        "train: 6 images in 2 tar shard(s), by shard and place in it",
        "train: no images, left out of the shards: 6 .cls",
        "val: 4 images in 2 tar shard(s), by shard and place in it",
        "val: no images, left out of the shards: 4 .cls",
    )
    expected = batches(of_files)
    for found in (batches(of_shards), batches(of_shards, workers=2)):
        for (ids, parts), (same_ids, same_parts) in zip(expected, found, strict=True):
            assert ids == same_ids and all(name.startswith(("cat.tar/", "dog.tar/")) for name in ids)
            assert parts and all(torch.equal(a, b) for a, b in zip(parts, same_parts, strict=True))


def test_resumed_run_on_shards(both: tuple[Path, Path], mae_config: MAEConfig, tmp_path: Path) -> None:
    run = replace(mae_config.run, length=Duration(4), save_every=Duration(1), keep_last=4)
    config = replace(mae_config, run=run)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    record = fit(built(config, data=both[1], init=None), config, recipe="tiny", out=whole)
    shutil.copytree(whole, stopped)
    for path in checkpoints(stopped)[2:]:
        path.unlink()
    again = fit(built(config, data=both[1], init=None), config, recipe="tiny", out=stopped, resume=True)
    assert again.metrics == record.metrics
    states = [torch.load(checkpoints(out)[-1], weights_only=True)["model"] for out in (whole, stopped)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_damaged_image_in_a_shard_is_counted(both: tuple[Path, Path], mae_config: MAEConfig, tmp_path: Path) -> None:
    with tarfile.open(both[1] / "train" / "cat.tar") as shard:
        place = shard.getmember("1.png").offset_data
    with (both[1] / "train" / "cat.tar").open("r+b") as file:
        file.seek(place)
        file.write(bytes(64))
    config = replace(mae_config, run=replace(mae_config.run, length=Duration(3)))
    record = fit(built(config, data=both[1], init=None), config, recipe="tiny", out=tmp_path / "o")
    (line,) = record.unreadable_images
    assert "train/cat.tar/1.png: cannot identify image file" in line
    assert record.status == "completed"


@pytest.mark.slow
def test_tool_on_shards(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = packed(few_scenes.imagenet, tmp_path / "shards", "-000")
    arguments = ["tiny", "--data", str(data), "--batch-size", "4", "--steps", "2", "--statistics"]
    assert pretrain.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "statistics of 32 of 32 training images: mean (0." in printed
    assert "data: train: 32 images in " in printed
    record = read_record(tmp_path / "run")
    assert (record.status, record.train_images, record.val_images) == ("completed", 32, 16)
    assert record.config["statistics"] is True and len(record.config["normalisation"]["mean"]) == 3
    assert any(line.startswith("normalisation: None -> ") for line in record.departures)
    # a run that is done: the evaluation alone is made again, with what it was trained with
    assert pretrain.main([*arguments, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "statistics of" not in capsys.readouterr().out
    assert read_record(tmp_path / "run").metrics == record.metrics

    (data / "train" / "more.tar.gz").write_bytes(b"\x1f\x8b")
    assert pretrain.main([*arguments, "--out", str(tmp_path / "other")]) == 1
    assert "more.tar.gz: compressed, so that no image in it can be read by itself" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert pretrain.main(["tiny_dvae", *arguments[1:], "--out", str(tmp_path / "other")]) == 1
    assert "recipe 'tiny_dvae' has no use for --statistics" in capsys.readouterr().err
