"""The Python face on tiny weights and runs, against the modules that it calls."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.normalisation import Normalisation
from engine.records.record import read_record
from mae_transfer import load_backbone, load_run, read_records
from pretraining.feature_pictures import last_attention
from scenes.layouts import ScenesIndex
from tools import predict, train_cls

TINY = ViTConfig(embed_dim=16, depth=3, num_heads=2, patch_size=8, image_size=(24, 32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, ViT(TINY), source="mae", normalisation=Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Any]:
    """The same picture as a file, an image and an array."""
    array = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    return [str(tmp_path / "a.png"), Image.fromarray(array), array]


def test_features_are_those_of_the_vit_on_normalised_pixels(file: Path, pictures: list[Any]) -> None:
    backbone = load_backbone(file)
    assert backbone.normalisation == Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    pixel = (
        torch.from_numpy(pictures[2]).permute(2, 0, 1)[None] / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    ) / (torch.tensor([0.2, 0.2, 0.1]).view(3, 1, 1))
    with torch.no_grad():
        expected, last = backbone.vit(pixel), backbone.vit.feature_maps(pixel, [0, 2])
    tokens = backbone.features(pictures)
    assert tokens.shape == (3, 1 + 12, 16) and not tokens.requires_grad
    for one in tokens:
        # float32: a batch of three and of one sum in another order
        torch.testing.assert_close(one, expected[0], rtol=1e-5, atol=1e-5)
    maps = backbone.feature_maps(pictures, [0, 2])
    assert [tuple(m.shape) for m in maps] == [(3, 16, 3, 4)] * 2
    torch.testing.assert_close(maps[1][0], last[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(backbone.feature_maps(pictures)[0], maps[1])


def test_attention_is_that_of_the_class_token(file: Path, pictures: list[Any]) -> None:
    backbone = load_backbone(file)
    weight = backbone.attention(pictures)
    assert weight.shape == (3, 2, 3, 4)
    torch.testing.assert_close(weight, last_attention(backbone.vit, backbone.pixels(pictures)))
    given = weight.sum(dim=(2, 3))  # the rest stays with the class token itself
    assert bool((given > 0).all() and (given < 1).all())


def test_what_is_no_picture_or_no_file_is_refused(file: Path, tmp_path: Path) -> None:
    backbone = load_backbone(file)
    with pytest.raises(ValueError, match=r"an array of float64 and shape \(4, 4\) is no picture; give uint8"):
        backbone.features([np.zeros((4, 4))])
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_backbone(tmp_path / "none.pth", source="mae")
    with pytest.raises(ValueError, match="mea"):
        load_backbone(file, source="mea")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, few_scenes: ScenesIndex) -> Path:
    out = tmp_path_factory.mktemp("face") / "run"
    assert train_cls.main(["tiny", "--data", str(few_scenes.root / "imagenet"), "--out", str(out), "--steps", "1"]) == 0
    return out


def test_a_run_says_what_the_tool_says(run: Path, pictures: list[Any], tmp_path: Path) -> None:
    loaded = load_run(run)
    said = loaded.predict(pictures)
    assert predict.main([str(run), pictures[0], "--out", str(tmp_path / "said")]) == 0
    (written,) = json.loads((tmp_path / "said" / "predictions.json").read_text())
    assert {name: written[name] for name in said[0]} == said[0] == said[1] == said[2]
    assert loaded.notes == (), "nothing is read by the word of the record"


def test_records_are_a_frame(run: Path) -> None:
    frame = read_records(run.parent)
    (top1,) = frame[frame.metric == "top1"].value
    assert top1 == read_record(run).metrics["top1"] and {*frame.weights} == {"random"}
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_records(run.parent / "nowhere")


def test_the_module_imports_no_torch() -> None:
    program = "import sys, mae_transfer; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).resolve().parents[2])
