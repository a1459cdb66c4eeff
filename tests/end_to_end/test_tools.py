"""Every training tool on a handful of scenes: it trains, stops, resumes to the same bits, and is evaluated again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import engine.training.loop
from backbones.config import ViTConfig
from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from engine.records.record import read_record
from engine.training.resume import checkpoints
from scenes.layouts import ScenesIndex
from tools import evaluate, predict, pretrain, train_cls, train_det, train_seg

TOOLS: dict[str, tuple[Callable[[list[str]], int], str, str, int]] = {
    "mae": (pretrain.main, "tiny", "imagenet", 8),
    "supervised": (pretrain.main, "tiny_supervised", "imagenet", 8),
    "classification": (train_cls.main, "tiny", "imagenet", 8),
    "detection": (train_det.main, "tiny", "coco", 4),
    "segmentation": (train_seg.main, "tiny", "ade20k", 4),
    "eomt": (train_seg.main, "tiny_eomt", "ade20k", 4),
}
METRICS = {
    "mae": {"val_loss"},
    "supervised": {"top1"},
    "classification": {"top1"},
    "detection": {"box_ap", "box_ap50", "mask_ap", "mask_ap50"},
    "segmentation": {"miou", "macc", "aacc"},
    "eomt": {"miou", "macc", "aacc"},
}


@pytest.fixture(scope="module")
def backbone(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a short MAE run, as every transfer takes it."""
    out = tmp_path_factory.mktemp("mae") / "run"
    assert pretrain.main(_arguments("mae", few_scenes, out, steps=1)) == 0
    return out / "backbone.safetensors"


def _arguments(task: str, scenes: ScenesIndex, out: Path, *, steps: int) -> list[str]:
    _, recipe, folder, batch = TOOLS[task]
    data = scenes.root / folder
    return [recipe, "--data", str(data), "--out", str(out), "--steps", str(steps), "--batch-size", str(batch)]


def _stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Send SIGTERM while the loop waits for batch number `batches`."""
    original = engine.training.loop.train_batches

    def stopping(*args: object, **kwargs: object) -> Iterator[object]:
        for number, batch in enumerate(original(*args, **kwargs), start=1):  # type: ignore[arg-type]
            if number == batches:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(engine.training.loop, "train_batches", stopping)


def _flat(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{path}/{i}").items()}
    return {path: value}


@pytest.mark.slow
@pytest.mark.parametrize("task", TOOLS)
def test_interrupted_run_resumes_to_the_same_bits(
    task: str, few_scenes: ScenesIndex, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = TOOLS[task][0]
    init = [] if task in ("mae", "supervised") else ["--init", str(backbone)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*_arguments(task, few_scenes, whole, steps=4), *init]) == 0

    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        assert main([*_arguments(task, few_scenes, parts, steps=4), *init]) == 130
    assert read_record(parts).status == "interrupted" and read_record(parts).steps == 2
    assert main([*_arguments(task, few_scenes, parts, steps=4), *init, "--resume"]) == 0

    records = [read_record(whole), read_record(parts)]
    assert records[0].metrics == records[1].metrics
    assert METRICS[task] <= records[0].metrics.keys()
    states = [_flat(torch.load(checkpoints(out)[-1], weights_only=True)) for out in (whole, parts)]
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][name]), name  # type: ignore[arg-type]
        elif not name.endswith(("_seconds", "started", "metrics_size", "metrics_sha256")):  # of rates
            assert value == states[1][name], name
    assert (whole / "results.jsonl").read_bytes() == (parts / "results.jsonl").read_bytes()
    for name in (*records[1].pictures, *records[1].outputs):
        assert (parts / name).stat().st_size > 0

    assert evaluate.main([str(parts)]) == 0
    again = json.loads(next((parts / "evaluations").glob("*/metrics.json")).read_text())
    assert again["metrics"] == records[1].metrics and again["step"] == 4


@pytest.mark.slow
def test_loader_processes_end_with_the_run(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """They ignore signals, so one that is left behind would keep the command from ever returning."""
    flags = [*_arguments("mae", few_scenes, tmp_path / "run", steps=1), "--workers", "1"]
    command = [sys.executable, str(Path(pretrain.__file__)), *flags]
    root = str(Path(pretrain.__file__).parents[1])
    # a run takes seconds; one that hangs is killed
    assert subprocess.run(command, timeout=240, env={**os.environ, "PYTHONPATH": root}, check=False).returncode == 0
    assert read_record(tmp_path / "run").status == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_data_without_a_training_split_is_evaluated(task: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "validation-only"
    assert TOOLS[task][0](_arguments(task, few_scenes, out, steps=1)) == 0
    record = read_record(out)
    training = shutil.ignore_patterns("train*", "instances_train*")
    shutil.copytree(record.data, other, ignore=training)
    assert evaluate.main([str(out), "--data", str(other)]) == 0
    again = json.loads((out / "evaluations" / record.val_split / "metrics.json").read_text())
    assert again["metrics"] == record.metrics


def test_init_of_another_architecture_is_refused(
    few_scenes: ScenesIndex, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments("classification", few_scenes, tmp_path / "run", steps=1)
    arguments[0] = "mae_base"
    assert train_cls.main([*arguments, "--init", str(backbone)]) == 1
    message = capsys.readouterr().err
    assert "error: " in message and "another architecture: embed_dim 192 (recipe: 768)" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0": "tinny"}, "no recipe is called 'tinny'; there are: mae_base, mae_base_linear,"),
        ({"0": "tinny"}, ", tiny. Did you mean tiny?"),
        ({"--data": "nowhere"}, "nowhere: no such folder; --data is the folder of the data set."),
        ({"--epochs": "1"}, "--steps and --epochs were both given"),
        ({"--init": "missing.safetensors"}, "missing.safetensors: no such file"),
        ({"--steps": "0"}, "is less than one step"),
    ],
)
def test_mistakes_are_said_in_one_line(
    changes: dict[str, str],
    message: str,
    few_scenes: ScenesIndex,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = _arguments("classification", few_scenes, tmp_path / "run", steps=1)
    for name, value in changes.items():
        if name == "0":
            arguments[0] = value
        elif name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    assert train_cls.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_classification_validates_on_another_split(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    arguments = _arguments("classification", few_scenes, tmp_path / "run", steps=1)
    assert train_cls.main([*arguments, "--val-split", "test"]) == 0
    record = read_record(tmp_path / "run")
    assert record.val_split == "test"
    assert record.val_images == len(list((few_scenes.root / "imagenet" / "test").glob("*/*")))


def test_evaluating_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path)]) == 1
    assert "record.json: no such record" in capsys.readouterr().err


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_weights_of_another_family(task: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """A timm file declared on the command line: the record names it, and its constants reach the data."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    theirs = VisionTransformer(img_size=64, patch_size=8, embed_dim=192, depth=6, num_heads=6, num_classes=7)
    weights, out = tmp_path / "vit.pth", tmp_path / "run"
    torch.save(theirs.state_dict(), weights)
    flags = ["--init", str(weights), "--init-source", "augreg", "--init-heads", "6"]
    assert TOOLS[task][0]([*_arguments(task, few_scenes, out, steps=1), *flags]) == 0
    record = read_record(out)
    assert (record.weights_source, record.weights_path) == ("augreg", str(weights))
    assert record.weights_options["num_heads"] == 6
    assert any("dropped 2 tensors: a head, of another task (head.bias" in line for line in record.weights_report)
    assert evaluate.main([str(out)]) == 0  # builds the task again from the record
    again = json.loads((out / "evaluations" / record.val_split / "metrics.json").read_text())
    assert again["metrics"] == record.metrics


def test_a_declaration_needs_a_file(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments("classification", few_scenes, tmp_path / "run", steps=1)
    assert train_cls.main([*arguments, "--init-source", "timm"]) == 1
    assert "source of the initial weights declared, but no file; give --init FILE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("form", ["beit", pytest.param("deit3", marks=pytest.mark.sweep)])
def test_the_architecture_of_the_weights(
    task: str, form: str, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """BEiT's biases, tables and layer scale, DeiT III's layer scale: no recipe has them."""
    common = {"embed_dim": 96, "depth": 6, "num_heads": 3, "patch_size": 8, "image_size": (64, 64), "layer_scale": 0.1}
    extra = {"qkv_bias": "qv", "relative_position": "table", "position": "none"} if form == "beit" else {}
    vit = ViT(ViTConfig(**common, **extra))  # type: ignore[arg-type]
    weights = tmp_path / "b.safetensors"
    write_checkpoint(weights, vit, source=form)
    arguments = _arguments(task, few_scenes, tmp_path / "run", steps=2)
    main, *_ = TOOLS[task]
    assert main([*arguments, "--init", str(weights)]) == 1
    assert main([*arguments, "--init", str(weights), "--init-architecture", "file"]) == 0
    record = read_record(tmp_path / "run")
    assert record.architecture["layer_scale"] == 0.1 and record.architecture["embed_dim"] == 96
    assert record.architecture["qkv_bias"] == ("qv" if form == "beit" else "fused")
    assert any("backbone.embed_dim: 192 -> 96" in line for line in record.departures)
    report = (tmp_path / "run" / "weights.txt").read_text().splitlines()
    assert sum("gamma_1" in line and line.startswith("loaded ") for line in report) == 6
    assert evaluate.main([str(tmp_path / "run")]) == 0
    image = next((few_scenes.root / "imagenet" / "val").glob("*/*"))
    assert predict.main([str(tmp_path / "run"), str(image)]) == 0
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 1  # the recipe's ViT in the place of this one
    assert "embed_dim" in capsys.readouterr().err


def test_a_tool_that_builds_the_recipes_vit_alone_says_so(
    few_scenes: ScenesIndex, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments("mae", few_scenes, tmp_path / "run", steps=1)
    assert pretrain.main([*arguments, "--init", str(backbone), "--init-architecture", "file"]) == 1
    assert "--init-architecture file: this tool builds the recipe's ViT alone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("main", [pretrain.main, train_cls.main, train_det.main, train_seg.main])
def test_help_has_every_family_of_weights(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert set(re.findall(r"\w+", capsys.readouterr().out)) >= SOURCES.keys()
