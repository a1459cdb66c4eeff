"""A run's folder alone, in another place, its data and the weights that it started from gone: what it still gives."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from engine.records.record import read_record, write_record
from mae_transfer import load_backbone, load_run
from scenes.layouts import ScenesIndex
from tools import evaluate, export_onnx, predict, pretrain, reconstruct, robustness, train_cls, train_det, train_seg

LAYOUTS = {"cls": "imagenet", "det": "coco", "seg": "ade20k", "mae": "imagenet"}
TRAINERS: dict[str, Callable[[list[str]], int]] = {
    "cls": train_cls.main, "det": train_det.main, "seg": train_seg.main, "mae": pretrain.main
}  # fmt: skip
TRANSFERS = ("cls", "det", "seg")
NORMALISATION = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
STEP = ["--steps", "1", "--batch-size", "4"]


@pytest.fixture(scope="module")
def runs(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, moved there from where they were made; their data and initial weights are gone."""
    torch.manual_seed(0)
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved")
    weights = made / "weights.safetensors"
    write_checkpoint(weights, ViT(FAMILY["vit_demo_patch8"]), source="mae", normalisation=NORMALISATION)
    for name, train in TRAINERS.items():
        (made / name).symlink_to(few_scenes.root / LAYOUTS[name])
        flags = ["--data", str(made / name), "--init", str(weights), "--out", str(made / "runs" / name), *STEP]
        assert train(["tiny", *flags]) == 0
    shutil.move(made / "runs", moved)
    shutil.rmtree(made)
    return moved / "runs"


@pytest.fixture
def photos(few_scenes: ScenesIndex, tmp_path: Path) -> Path:
    """Two images of any origin."""
    for number, path in enumerate(sorted((few_scenes.coco / "val2017").glob("*.jpg"))[:2]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "photos" / f"{number}.jpg")
    return tmp_path / "photos"


@pytest.mark.parametrize("name", TRANSFERS)
def test_it_predicts(name: str, runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert predict.main([str(runs / name), str(photos), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "as the record says" not in said.out and "record of before" not in said.err
    entries = json.loads((out / "predictions.json").read_text())
    loaded = load_run(runs / name)
    again = loaded.predict([photos / "0.jpg", photos / "1.jpg"])
    for entry, values in zip(entries, again, strict=True):
        assert {key: entry[key] for key in values} == json.loads(json.dumps(values))
        assert all((out / picture).is_file() for picture in entry["pictures"])


def test_its_label_maps_are_the_data_sets(runs: Path, photos: Path, tmp_path: Path, few_scenes: ScenesIndex) -> None:
    assert predict.main([str(runs / "seg"), str(photos / "0.jpg"), "--out", str(tmp_path / "out")]) == 0
    record = read_record(runs / "seg")
    classes = record.extra["classes"]
    assert record.labels["numbers"] == list(range(1, len(classes) + 1)), "as ADE20K's maps, from 1"
    with Image.open(tmp_path / "out" / "0_labels.png") as index:
        numbers, colours = np.asarray(index), np.asarray(index.convert("RGB"))
    for number in np.unique(numbers):
        assert (colours[numbers == number] == record.labels["palette"][number - 1]).all()


def test_as_many_pictures_as_asked(
    runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = [str(runs / "det"), str(photos), "--out", str(out)]
    assert predict.main([*flags, "--pictures", "1", "--min-score", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "warning: no picture shows a detection: none has a score of 0.9 or more (the" in said
    assert "--min-score draws lower ones, and predictions.json has all." in said
    entries = json.loads((out / "predictions.json").read_text())
    assert [entry["pictures"] for entry in entries] == [["0.png"], []]
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "predictions.json"]


def test_flags_of_pictures_are_checked(runs: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, flags, message in (
        ("det", ["--min-score", "1.5"], "--min-score 1.5: scores are from 0 to 1"),
        ("cls", ["--min-score", "0.5"], "--min-score: a run of task 'classification' finds nothing by score"),
        ("cls", ["--pictures", "-1"], "--pictures -1: it must not be negative"),
        ("mae", [], "a run of task 'mae', which makes no predictions on images without labels"),
    ):
        assert predict.main([str(runs / name), str(photos), *flags]) == 1
        assert message in capsys.readouterr().err


def test_a_record_of_before_says_what_it_lacks(
    runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "seg", tmp_path / "seg")
    write_record(tmp_path / "seg", replace(read_record(runs / "seg"), labels={}))
    assert predict.main([str(tmp_path / "seg"), str(photos), "--out", str(tmp_path / "out")]) == 0
    assert "record.json, a record of before, states no colours and no numbers of the label maps" in (
        capsys.readouterr().err
    )


def test_it_is_evaluated_on_other_data(
    runs: Path, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "cls"
    shutil.copytree(runs / "cls", run)
    assert evaluate.main([str(run), "--data", str(few_scenes.imagenet)]) == 0
    metrics = json.loads((run / "evaluations" / "val" / "metrics.json").read_text())["metrics"]
    assert metrics == read_record(run).metrics
    assert robustness.main([str(run), "folders", str(few_scenes.imagenet / "test")]) == 0


@pytest.mark.parametrize("name", TRANSFERS)
def test_it_is_evaluated_without_a_training_image(
    name: str, runs: Path, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    run, data = tmp_path / name, tmp_path / "data"
    shutil.copytree(runs / name, run)
    shutil.copytree(few_scenes.root / LAYOUTS[name], data, ignore=shutil.ignore_patterns("train*", "instances_train*"))
    record = read_record(run)
    write_record(run, replace(record, config={**record.config, "label_fraction": 0.5}))
    assert evaluate.main([str(run), "--data", str(data)]) == 0
    (found,) = (run / "evaluations").iterdir()
    assert json.loads((found / "metrics.json").read_text())["metrics"] == record.metrics
    (found / "metrics.json").unlink()
    write_record(run, replace(record, data=str(data)))  # its own data, of which the training images are gone
    assert evaluate.main([str(run)]) == 0
    assert json.loads((found / "metrics.json").read_text())["metrics"] == record.metrics


def test_it_is_exported(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    assert export_onnx.main([str(runs / "cls"), "--out", str(tmp_path / "m.onnx")]) == 0


def test_pretraining_reconstructs(runs: Path, photos: Path, tmp_path: Path) -> None:
    assert reconstruct.main([str(runs / "mae"), str(photos), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "reconstructions.png").is_file()


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_transfer_leaves_its_backbone(name: str, runs: Path) -> None:
    record, file = read_record(runs / name), runs / name / "backbone.safetensors"
    checkpoint = read_checkpoint(InitialWeights(path=file))
    assert checkpoint.source == f"mae+{record.task}" and checkpoint.normalisation == NORMALISATION
    assert record.outputs[0] == file.name and file.name in record.files_sha256
    trained: Any = load_run(runs / name).trained
    vit = {"cls": "backbone", "det": "backbone.net", "seg": "segmentor.backbone.vit"}
    prefix = next(p for p in (vit[name], "backbone.vit") if f"{p}.patch_embed.proj.bias" in trained.model.state_dict())
    for key, tensor in checkpoint.state.items():
        torch.testing.assert_close(tensor, trained.model.state_dict()[f"{prefix}.{key}"], rtol=0, atol=0)


def test_a_transfer_starts_from_a_transfer(runs: Path, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """The file says by itself what it is: family, architecture, normalisation."""
    init = runs / "cls" / "backbone.safetensors"
    data = str(few_scenes.ade20k)
    assert train_seg.main(["tiny", "--data", data, "--init", str(init), "--out", str(tmp_path / "seg"), *STEP]) == 0
    record = read_record(tmp_path / "seg")
    assert record.weights_source == "mae+classification"
    left = load_backbone(tmp_path / "seg" / "backbone.safetensors")
    assert left.report.source == "mae+classification+segmentation" and left.normalisation == NORMALISATION
