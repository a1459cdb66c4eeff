"""Mean and std of one's own images, by hand; and how they travel."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

import pretraining.statistics
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from classification.config import ClassificationConfig
from engine.images.reading import open_images
from engine.training.loop import fit
from files.typed import from_json
from pretraining.gallery import open_run
from pretraining.mae.config import MAEConfig
from pretraining.mae.task import build_task
from pretraining.recipes import tiny_supervised
from pretraining.statistics import Statistics, measure, moments, with_statistics
from pretraining.supervised import build_task as build_supervised
from tools import check_data


def of(folder: Path, size: tuple[int, int] = (32, 32)) -> Statistics:
    return measure(open_images(folder), size, workers=0, progress=lambda done, total: None)


def test_moments_by_hand() -> None:
    image = Image.fromarray(np.array([[[0, 51, 255], [255, 51, 255]], [[0, 102, 0], [255, 102, 0]]], dtype=np.uint8))
    # of 0, 1, 0, 1; of 0.2, 0.2, 0.4, 0.4; of 1, 1, 0, 0
    np.testing.assert_allclose(moments([image]), [[0.5, 0.3, 0.5], [0.5, 0.1, 0.5]], rtol=1e-12)  # float64


def test_images_count_alike(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 51, 102)).save(tmp_path / "small.png")
    Image.new("RGB", (300, 100), (255, 153, 102)).save(tmp_path / "wide.png")  # of one colour whatever its size
    Image.new("RGB", (40, 40), (255, 102, 153)).save(tmp_path / "a.png")
    made = of(tmp_path)
    red = math.sqrt(2 / 3 - 4 / 9)  # of 0, 1, 1
    other = math.sqrt((0.04 + 0.36 + 0.16) / 3 - 0.16)  # of 0.2, 0.6, 0.4
    blue = math.sqrt((0.16 + 0.16 + 0.36) / 3 - (1.4 / 3) ** 2)  # of 0.4, 0.4, 0.6
    assert made.normalisation.mean == (0.6667, 0.4, 0.4667)
    assert made.normalisation.std == (round(red, 4), round(other, 4), round(blue, 4))
    assert (made.images, made.of, made.unreadable) == (3, 3, ())


@pytest.mark.parametrize("size", [(12, 2400), (2400, 12), (1, 3001)])
def test_long_images_count_as_a_whole(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    whole = resize(image, [36], InterpolationMode.BICUBIC)
    pieces = list(pretraining.statistics._pieces(image, 36))
    assert len(pieces) > 1 and max(max(piece.size) for piece in pieces) == 64 * 36
    # a level that is rounded otherwise changes a mean by 1 / 255 / pixels
    np.testing.assert_allclose(moments(pieces), moments([whole]), atol=1e-6)


def test_very_long_images_are_seen_in_parts(tmp_path: Path) -> None:
    Image.new("RGB", (60_000, 1), (0, 51, 255)).save(tmp_path / "a.png")
    Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "b.png")
    assert of(tmp_path).normalisation.mean == (0.5, 0.1, 0.5)


def test_seen_at_the_size_of_evaluation(tmp_path: Path) -> None:
    stripes = np.zeros((72, 72, 3), dtype=np.uint8)
    stripes[::2] = 255  # 72 px to 36: black and white rows become grey
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert max(of(tmp_path).normalisation.std) < 0.1
    assert of(tmp_path, (63, 63)).normalisation.std == (0.5, 0.5, 0.5)  # 63 / 0.875 is 72: as it is


def test_sample_and_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(tmp_path / f"{number:02}.png")
    whole = of(tmp_path)
    (tmp_path / "03.png").write_bytes(b"broken")
    made = of(tmp_path)
    assert (made.images, made.of) == (11, 12)
    assert made.lines()[1].startswith("warning: left out of the statistics: ") and "03.png" in made.lines()[1]
    monkeypatch.setattr(pretraining.statistics, "SAMPLE", 5)
    some = of(tmp_path)
    assert some.images + len(some.unreadable) == 5 and some == of(tmp_path)
    assert some.normalisation != whole.normalisation
    for path in tmp_path.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(
        ValueError, match=r"none of 5 images could be read for their statistics; the last: .*unreadable"
    ):
        of(tmp_path)


def test_one_colour_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"normalisation has a std of \(0\.0, 0\.0, 0\.0\)"):
        of(tmp_path)


def test_they_travel(mae_config: MAEConfig, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = replace(mae_config, statistics=True)
    out = tmp_path / "run"
    config = with_statistics(asked, data=data, out=out, resume=False, init=None)
    assert config.normalisation == of(data / "train").normalisation
    assert "statistics of 6 of 6 training images: mean (0.4" in capsys.readouterr().out
    task = build_task(config, data=data, init=None)
    # views of training images have zero mean and unit std; of four crops of noise, up to their choice
    views = np.stack([task.model.normalise(task.val_data[i][0]).numpy() for i in range(4)])
    assert abs(views.mean()) < 0.05 and abs(views.std() - 1) < 0.15
    fit(task, config, recipe="tiny", out=out)
    assert read_checkpoint(InitialWeights(path=out / "backbone.safetensors")).normalisation == config.normalisation
    (out / "backbone.safetensors").unlink()
    assert open_run(out).normalisation == config.normalisation  # from the record

    (data / "train" / "cat" / "0.png").write_bytes(b"")  # what is computed now would be something else
    assert with_statistics(asked, data=data, out=out, resume=True, init=None) == config
    assert capsys.readouterr().out.count("statistics of") == 0
    with pytest.raises(ValueError, match="holds a run already"):
        with_statistics(asked, data=data, out=out, resume=False, init=None)


def test_refused(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    asked = replace(mae_config, statistics=True)
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, ViT(mae_config.backbone), source="mae", normalisation=Normalisation())
    message = r"weights\.safetensors: weights know what their pixels were normalised with; drop --statistics"
    with pytest.raises(ValueError, match=message):
        with_statistics(asked, data=data, out=tmp_path, resume=False, init=InitialWeights(path=path))
    continued = replace(asked, resume_from=str(path))
    with pytest.raises(ValueError, match=message):
        with_statistics(continued, data=data, out=tmp_path, resume=False, init=None)
    (tmp_path / "config.json").write_text(json.dumps({"config": {"normalisation": None}}))
    with pytest.raises(ValueError, match=r"config\.json: states no mean and std, so the run was not begun with"):
        with_statistics(asked, data=data, out=tmp_path, resume=True, init=None)


def test_the_supervised_arm_has_the_same(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    labels = replace(
        tiny_supervised(), backbone=mae_config.backbone, run=mae_config.run, statistics=True, pooling="class"
    )
    out = tmp_path / "run"
    config = with_statistics(labels, data=data, out=out, resume=False, init=None)
    assert config.normalisation == of(data / "train").normalisation != Normalisation()
    task = build_supervised(config, data=data, init=None)
    plain = build_supervised(labels, data=data, init=None)
    assert config.normalisation is not None
    pixels = task.val_data[0][0]
    assert torch.equal(pixels, plain.val_data[0][0])
    for one, normalisation in ((task, config.normalisation), (plain, Normalisation())):
        std, mean = (torch.tensor(values)[:, None, None] for values in (normalisation.std, normalisation.mean))
        torch.testing.assert_close(one.model.normalise(pixels) * std + mean, pixels / 255, rtol=0, atol=1e-6)
    fit(task, config, recipe="tiny_supervised", out=out)
    assert read_checkpoint(InitialWeights(path=out / "backbone.safetensors")).normalisation == config.normalisation
    record = json.loads((out / "record.json").read_text())
    assert from_json(ClassificationConfig, record["config"]) == config


def test_channels_by_hand(tmp_path: Path) -> None:
    half = np.zeros((2, 4, 4), np.uint16)
    half[0] = 65535
    half[:, :, 3] = 6554  # a channel that uses a tenth of 0 to 1
    half[0, :, 3] = 0
    np.save(tmp_path / "a.npy", half)
    np.save(tmp_path / "b.npy", np.ones((50, 60, 4), np.float32))  # counts as much as the other
    made = measure(open_images(tmp_path, 4), (32, 32), workers=0, progress=lambda done, total: None, channels=4)
    tenth = 6554 / 65535
    mean, square = (0.5 * tenth + 1) / 2, (0.5 * tenth**2 + 1) / 2
    assert made.normalisation.mean == (0.75, 0.75, 0.75, float(f"{mean:.4g}"))  # of 0, 1 and of 1, 1
    std = float(f"{math.sqrt(0.75 - 0.75**2):.4g}")
    assert made.normalisation.std == (std, std, std, float(f"{math.sqrt(square - mean**2):.4g}"))


def test_channels_are_printed_as_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kind in enumerate((np.uint8, np.uint16)):
        stored = np.arange(32).reshape(4, 4, 2) * (8 if kind is np.uint8 else 2000)
        np.save(tmp_path / f"{number}.npy", stored.astype(kind))
    assert check_data.main(["channels", str(tmp_path), "--in-chans", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 images read, 2 channels" in said and "numbers: uint8 (1), uint16 (1)" in said
    assert "warning: numbers of several types" in said
    flags = said.splitlines()[-1].split()
    assert flags[:3] == ["--in-chans", "2", "--channel-mean"] and flags[5] == "--channel-std" and len(flags) == 8
    (tmp_path / "2.npy").write_bytes(b"no array")
    assert check_data.main(["channels", str(tmp_path), "--in-chans", "2"]) == 1
    assert "left out: " in capsys.readouterr().out
    assert check_data.main(["channels", str(tmp_path), "--in-chans", "3"]) == 1
    assert "--in-chans 3 is RGB" in capsys.readouterr().err
