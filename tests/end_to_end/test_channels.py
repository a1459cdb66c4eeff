"""Images of five channels on the command line: pre-train, transfer, go on, predict, probe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from mae_transfer import load_run
from tests.array_images import write_class_folders, write_label_maps
from tools import check_data, evaluate, predict, pretrain, probe, train_cls, train_seg

FEW = ["--steps", "2", "--batch-size", "4", "--precision", "32-true"]
MEAN, STD = (0.2, 0.2, 0.2, 0.26, 0.26), (0.06, 0.06, 0.06, 0.18, 0.18)
DECLARED = ["--in-chans", "5", "--channel-mean", *map(str, MEAN), "--channel-std", *map(str, STD)]


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "record.json").read_text()))


@pytest.mark.slow
def test_from_pixels_to_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes, maps = write_class_folders(tmp_path / "classes"), write_label_maps(tmp_path / "maps", np.float32)
    runs = {name: tmp_path / name for name in ("mae", "cls", "seg")}
    asked = {"mae": pretrain.main, "cls": train_cls.main, "seg": train_seg.main}
    weights = ["--init", str(runs["mae"] / "backbone.safetensors")]
    line = ["tiny", *DECLARED, *FEW, "--data", str(classes), "--out", str(runs["mae"])]
    assert asked["mae"](line) == 0
    backbone = read_checkpoint(InitialWeights(path=runs["mae"] / "backbone.safetensors"))
    assert backbone.architecture.in_chans == 5 and backbone.normalisation.mean == MEAN
    for name, data in (("cls", classes), ("seg", maps)):  # the statistics come with the weights
        line = ["tiny", "--in-chans", "5", *FEW, "--data", str(data), *weights, "--out", str(runs[name])]
        assert asked[name](line) == 0
        assert tuple(record(runs[name])["normalisation"]["mean"]) == MEAN
        assert "images of 5 channels, read from .npy arrays" in record(runs[name])["data_notes"][0]
        assert evaluate.main([str(runs[name])]) == 0
        out = tmp_path / f"predicted_{name}"
        assert predict.main([str(runs[name]), str(data), "--out", str(out)]) == 0
        assert len(json.loads((out / "predictions.json").read_text())) == 8 and (out / "4.png").is_file()
    trained = load_run(runs["cls"])
    (found,) = trained.predict([classes / "val" / "odd" / "5.npy"])
    assert {*found["classes"]} == {"even", "odd"}
    with pytest.raises(ValueError, match="in_chans is 5: an exported model is of RGB"):
        trained.trained.exportable()  # type: ignore[attr-defined]
    # a photograph is no image of five channels, and a folder of photographs holds none
    capsys.readouterr()
    (tmp_path / "a.png").write_bytes((out / "4.png").read_bytes())
    assert predict.main([str(runs["cls"]), str(tmp_path / "a.png"), "--out", str(out)]) == 1
    assert "no .npy array, from which images of 5 channels are read" in capsys.readouterr().out
    assert check_data.main(["classes", str(classes), "--in-chans", "5"]) == 0


@pytest.mark.slow
def test_rgb_weights_and_a_run_that_goes_on(tmp_path: Path) -> None:
    classes = write_class_folders(tmp_path / "classes", np.uint8, first=True)
    torch.manual_seed(0)
    leave_backbone(tmp_path, ViT(FAMILY["vit_demo_patch8"]), source="mae", normalisation=IMAGENET)
    line = ["tiny", *DECLARED, *FEW, "--data", str(classes), "--init", str(tmp_path / "backbone.safetensors")]
    assert train_cls.main([*line, "--out", str(tmp_path / "once")]) == 0
    said = record(tmp_path / "once")["weights_report"]
    assert any("patch_embed.proj.weight: 3 -> 5 channels, repeat" in text for text in said)
    assert any("the 3 in turn, times 3 / 5, as timm's adapt_input_conv" in text for text in said)
    # one step, then the other: the weights of both steps at once, to the bit
    saving = [*line, "--save-every", "1", "--out", str(tmp_path / "twice")]
    assert train_cls.main(saving) == 0
    _, second = sorted((tmp_path / "twice" / "checkpoints").glob("step-*.pt"))
    second.unlink()
    assert train_cls.main([*saving, "--resume"]) == 0
    one, two = (
        read_checkpoint(InitialWeights(path=tmp_path / run / "backbone.safetensors")) for run in ("once", "twice")
    )
    assert all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())


def test_what_is_not_known_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = write_class_folders(tmp_path / "classes")
    line = ["tiny", "--in-chans", "5", *FEW, "--data", str(classes), "--out", str(tmp_path / "run")]
    assert train_cls.main(line) == 1
    assert "the mean and std of the channels are not known" in capsys.readouterr().err
    assert train_cls.main([*line, "--channel-mean", "0.5", "--channel-std", "0.5"]) == 1
    assert "channel_mean has 1 number(s) and in_chans is 5" in capsys.readouterr().err
    six = [text if text != "5" else "6" for text in DECLARED]
    six = [*six[:8], "0.3", *six[8:], "0.3"]
    assert train_cls.main(["tiny", *six, *FEW, "--data", str(classes), "--out", str(tmp_path / "run")]) == 1
    assert ".npy: an array of shape (64, 64, 5), by which it has 5 channel(s), and in_chans is 6" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_statistics_and_probes(tmp_path: Path) -> None:
    classes = write_class_folders(tmp_path / "classes")
    line = ["tiny_supervised", "--in-chans", "5", "--statistics", *FEW, "--data", str(classes)]
    assert pretrain.main([*line, "--out", str(tmp_path / "run")]) == 0
    file = tmp_path / "run" / "backbone.safetensors"
    found = read_checkpoint(InitialWeights(path=file)).normalisation
    assert np.allclose(found.mean, MEAN, atol=0.01) and np.allclose(found.std, STD, atol=0.01)
    line = ["vit_demo_patch8", "--in-chans", "5", "--linear-epochs", "1", "--data", str(classes), "--init", str(file)]
    assert probe.main([*line, "--out", str(tmp_path / "probe")]) == 0
    assert record(tmp_path / "probe" / "knn")["metrics"]["top1"] >= 0
    # MAE from those weights, its target fitted on the arrays, its features probed on the way
    more = ["--target", "pca", "--pca-components", "8", "--probe-data", str(classes), "--init", str(file)]
    line = ["tiny", "--in-chans", "5", *FEW, *more, "--data", str(classes), "--out", str(tmp_path / "mae")]
    assert pretrain.main(line) == 0
    assert record(tmp_path / "mae")["metrics"]["probe_knn"] >= 0
