"""Predicting on images of awkward names and contents: every image its own pictures, none over what is read."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classification.trained import TrainedClassifier
from scenes.layouts import ScenesIndex
from tools import predict, train_cls, train_seg


@pytest.fixture(scope="module")
def runs(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A step of the smallest recipes."""
    root = tmp_path_factory.mktemp("runs")
    flags = ["--steps", "1", "--batch-size", "4"]
    data = {"cls": few_scenes.root / "imagenet", "seg": few_scenes.root / "ade20k"}
    for name, main in (("cls", train_cls.main), ("seg", train_seg.main)):
        assert main(["tiny", "--data", str(data[name]), "--out", str(root / name), *flags]) == 0
    return {name: root / name for name in data}


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(1).integers(0, 255, (48, 40, 3), np.uint8)
    with path.open("wb") as file:
        Image.fromarray(values).save(file, "png")
    return path


def test_every_image_has_its_own_pictures(runs: dict[str, Path], tmp_path: Path) -> None:
    names = ("a/x.jpg", "b/x.jpg", "c/X.png", "c/x_labels.jpg", f"d/{'l' * 250}.png", os.fsdecode(b"d/caf\xe9.png"))
    images = [_image(tmp_path / name) for name in names]
    out = tmp_path / "out"
    assert predict.main([str(runs["seg"]), *map(str, images), "--out", str(out)]) == 0
    entries = json.loads((out / "predictions.json").read_text())
    assert [entry["image"] for entry in entries] == [str(image) for image in images]
    written = [name for entry in entries for name in entry["pictures"]]
    assert len(written) == len({name.lower() for name in written}) == 2 * len(images)
    assert {*os.listdir(out)} == {*written, "predictions.json"}
    assert entries[0]["pictures"] == ["x.png", "x_labels.png"]


def test_no_image_is_written_over(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = _image(tmp_path / "photos" / "x.png")
    before = image.read_bytes()
    assert predict.main([str(runs["cls"]), str(tmp_path / "photos"), "--out", str(tmp_path / "photos")]) == 1
    assert "x.png: would be written over" in capsys.readouterr().err
    assert image.read_bytes() == before and os.listdir(tmp_path / "photos") == ["x.png"]


def test_the_others_go_on_after_an_image_that_fails(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [_image(tmp_path / f"{name}.png") for name in ("one", "two", "three")]
    original = TrainedClassifier.predict_image

    def failing(trained: TrainedClassifier, path: Path) -> dict[str, Any]:
        if path.stem == "two":
            raise RuntimeError("out of memory")
        return original(trained, path)

    monkeypatch.setattr(TrainedClassifier, "predict_image", failing)
    assert predict.main([str(runs["cls"]), *map(str, images), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert f"warning: {images[1]}: RuntimeError: out of memory" in said.out
    assert "error: 1 of 3 images gave nothing" in said.err
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(entry["image"]).stem for entry in entries] == ["one", "three"]
