"""What the tensors of a timm file do not show: told by config.json, by a known name, or declared; else refused."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF, IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint
from tools.convert_checkpoint import main

CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@lru_cache(maxsize=4)
def model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name).eval()


def written(path: Path, name: str, config: Mapping[str, Any] | None = None) -> Path:
    """The tensors of timm's model at `path`, and timm's config.json beside it."""
    path.parent.mkdir(exist_ok=True)
    save_file(model(name).state_dict(), path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


def read(path: Path, source: str = "timm", **declared: Any) -> Checkpoint:
    return read_checkpoint(InitialWeights(path=path, source=source, **declared))


def test_config_json_tells_heads_and_pixels(tmp_path: Path) -> None:
    """vit_base_patch16_gap_224 has 16 heads at a width of 768, where every published ViT of that width has 12."""
    name = "vit_base_patch16_gap_224"
    config = {"architecture": name, "pretrained_cfg": {"mean": list(CLIP.mean), "std": list(CLIP.std)}}
    checkpoint = read(written(tmp_path / "any.safetensors", name, config))
    assert checkpoint.architecture.num_heads == model(name).blocks[0].attn.num_heads == 16  # type: ignore[union-attr]
    assert checkpoint.normalisation == CLIP
    vit = ViT(checkpoint.architecture, class_token=False).eval()
    load_checkpoint(vit, checkpoint)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made, expected = vit(image), model(name).forward_features(image)  # type: ignore[operator]
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)  # float32 over twelve blocks, tokens of some units


@pytest.mark.parametrize(
    ("file", "heads", "pixels"),
    [
        ("vit_small_patch16_224.dino.safetensors", 6, IMAGENET),
        ("vit_small_patch16_224.augreg_in21k.safetensors", 6, HALF),
        ("models--timm--vit_small_patch16_224.dino/model.safetensors", 6, IMAGENET),
        ("dino_deitsmall16_pretrain.pth", 6, IMAGENET),  # of the table of public checkpoints
        ("deit_small_patch16_224-cd65a155.pth", 6, IMAGENET),
        ("deit_small_patch16_224.pth", 6, IMAGENET),  # all its published weights agree
    ],
)
def test_a_known_name_tells(tmp_path: Path, file: str, heads: int, pixels: Normalisation) -> None:
    path = tmp_path / file
    if path.suffix == ".safetensors":
        written(path, "vit_small_patch16_224")
    else:
        torch.save(model("vit_small_patch16_224").state_dict(), path)
    checkpoint = read(path)
    assert (checkpoint.architecture.num_heads, checkpoint.normalisation) == (heads, pixels)


@pytest.mark.parametrize("file", ["best.safetensors", "vit_small_patch16_224.safetensors"])
def test_pixels_that_nothing_tells_are_declared(tmp_path: Path, file: str) -> None:
    """The second name is of weights with 0.5 and with ImageNet's constants (dino)."""
    path = written(tmp_path / file, "vit_small_patch16_224")
    with pytest.raises(ValueError, match=r"nothing tells the mean and std of the pixels.*--init-mean, --init-std"):
        read(path)
    assert read(path, mean=CLIP.mean, std=CLIP.std).normalisation == CLIP
    with pytest.raises(ValueError, match="the mean of the pixels is declared without the std"):
        read(path, mean=CLIP.mean)


def test_a_declaration_overrides_what_a_file_tells(tmp_path: Path) -> None:
    path = written(tmp_path / "vit_small_patch16_224.dino.safetensors", "vit_small_patch16_224")
    checkpoint = read(path, mean=CLIP.mean, std=CLIP.std)
    assert checkpoint.normalisation == CLIP
    assert "normalisation: declared, in place of what the file tells" in checkpoint.notes
    out = tmp_path / "own.safetensors"
    flags = ["--init-mean", "0", "0", "0", "--init-std", "1", "1", "1"]
    assert main(["convert", str(path), "--init-source", "timm", *flags, "--out", str(out)]) == 0
    assert read(out, "own").normalisation == Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert read(out, "own", mean=CLIP.mean, std=CLIP.std).normalisation == CLIP


ROPE = "vit_small_patch16_rope_ape_224"


@pytest.mark.parametrize("name", [ROPE, "vit_base_patch16_rpn_224"])
@pytest.mark.parametrize("by", ["config", "name"])
def test_models_that_compute_otherwise_are_refused(tmp_path: Path, name: str, by: str) -> None:
    """They have the tensors of a plain ViT; rotary positions alone move tokens of about 4 by 0.43."""
    config = {"architecture": name, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    path = tmp_path / (f"{name}.safetensors" if by == "name" else "model.safetensors")
    with pytest.raises(ValueError, match=rf"{name}, which is no plain ViT: it has .*Not supported"):
        read(written(path, name, config if by == "config" else None), mean=HALF.mean, std=HALF.std)


@pytest.mark.parametrize("name", [ROPE, "vit_base_patch16_gap_224"])
def test_tensors_of_several_models_are_refused_until_declared(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "model.safetensors", name)
    with pytest.raises(ValueError, match=r"no config\.json of timm beside the file and no known name.*--init-heads"):
        read(path, mean=HALF.mean, std=HALF.std)
    assert read(path, mean=HALF.mean, std=HALF.std, num_heads=6).architecture.num_heads == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vit_of_tomorrow"}, "'vit_of_tomorrow', which timm .* does not know"),
        ({"architecture": 3}, "has architecture 3 and model_args"),
        ({"model_args": {"act_layer": "quick_gelu"}}, "has model_args act_layer, which may change what the ViT"),
        ({"model_args": {"num_heads": "six"}}, "has num_heads 'six', which is no number of heads"),
        ({"pretrained_cfg": {"mean": 0.5, "std": [0.5]}}, "has mean 0.5 and std .*, which are no lists"),
        ({"architecture": "vit_base_patch16_224"}, "of width 768, depth 12 and patches of 16, .* weights have 384, 12"),
    ],
)
def test_a_config_that_cannot_be_relied_on(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    right = {"architecture": "vit_small_patch16_224", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    path = written(tmp_path / "model.safetensors", "vit_small_patch16_224", right | change)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_config_of_something_else_is_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", "vit_small_patch16_224", {"model_type": "vit"})
    assert read(path, mean=HALF.mean, std=HALF.std).notes[0].startswith("config.json beside the file is not timm's")


def test_augreg_refuses_a_file_of_other_pixels(tmp_path: Path) -> None:
    path = written(tmp_path / "vit_small_patch16_224.dino.safetensors", "vit_small_patch16_224")
    with pytest.raises(ValueError, match=r"mean of \(0\.485, .*declare source 'timm'"):
        read(path, "augreg")
    named = written(tmp_path / "vit_small_patch16_224.augreg_in1k.safetensors", "vit_small_patch16_224")
    assert read(named, "augreg").normalisation == HALF


BEIT_FILES = {
    "beit_base_patch16_224_pt22k_ft22k.pth": HALF,
    "beitv2_base_patch16_224_pt1k_ft21k.pth": IMAGENET,
    "beitv2_base_patch16_224_pt1k.pth": IMAGENET,
    "beit_base_patch16_224.in22k_ft_in22k.pth": HALF,
    "beitv2_base_patch16_224.in1k_ft_in1k.pth": IMAGENET,
}


@pytest.mark.parametrize("file", BEIT_FILES)
def test_beit_and_its_second_version_have_other_pixels(tmp_path: Path, file: str) -> None:
    """The tensors are the same; what was taken for BEiT's 0.5 in silence is told by the name."""
    state: dict[str, Tensor] = model("beitv2_base_patch16_224").state_dict()
    torch.save({"model": state}, tmp_path / file)
    assert read(tmp_path / file, "beit").normalisation == BEIT_FILES[file]
    torch.save({"model": state}, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"mine\.pth: read as source 'beit' .*nothing tells the mean and std"):
        read(tmp_path / "mine.pth", "beit")


def test_every_plain_vit_of_timm_is_taken_with_its_own_heads() -> None:
    """All architectures of the installed timm: each is refused by what it computes, or gives timm's heads."""
    from backbones.sources.timm_config import _plain

    taken = {}
    for name in timm.list_models(module="deit") + timm.list_models("vit_*_patch16_224"):
        try:
            taken[name] = _plain(name, "test")[0]
        except ValueError as error:
            assert "no plain ViT" in str(error), name
    assert taken["vit_base_patch16_224"] == 12 and taken["deit_tiny_distilled_patch16_224"] == 3
    assert ROPE not in taken and "vit_base_patch16_rpn_224" not in taken
