"""Perception Encoder of timm: tokens and gradients are timm's, at squares and other forms; heads dropped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from backbones.config import ViTConfig
from backbones.rotary import patch_angles
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF, OPENAI_CLIP
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_aimv2_eva02 import timms
from tests.backbones.sources.test_source_dinov3 import published, same


def pe(name: str, folder: Path, size: tuple[int, int]) -> tuple[nn.Module, InitialWeights]:
    """timm's model made small, its angles in float64, and its file."""
    model: Any
    model, declared = timms(name, folder, size)
    # timm computes the angles in float32, which holds these rows and columns exactly, and no frequency but 1
    bands = 10_000.0 ** -(torch.arange(2, dtype=torch.float64) / 2)
    model.rope.pos_embed = model.rope._build_embed_cat(model.patch_embed.grid_size, bands, dtype=torch.float64)
    return model, declared


@pytest.mark.parametrize("patches", [(2, 2), (2, 4), (4, 1)])
@pytest.mark.parametrize(
    "name",
    [
        "vit_pe_core_base_patch16_224",
        "vit_pe_core_gigantic_patch14_448",
        "vit_pe_spatial_large_patch14_448",
        "vit_pe_lang_large_patch14_448",
    ],
)
def test_perception_encoder_of_timm(tmp_path: Path, name: str, patches: tuple[int, int]) -> None:
    patch = 16 if "patch16" in name else 14
    size = (patches[0] * patch, patches[1] * patch)
    model, declared = pe(name, tmp_path, size)
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.rotary, a.rotary_base, a.rotary_first, a.norm_eps) == ("stretched", 10_000, "columns", 1e-5)
    assert a.rotary_grid == ((14, 14) if "base" in name else (32, 32))
    assert a.rotary_offset == (0 if "gigantic" in name else 1)
    assert (a.position, a.qkv_bias, a.activation, a.pre_norm) == ("learned", "fused", "gelu", True)
    assert ("norm.weight" in checkpoint.state) == ("core" in name)
    pooled = [line for line in checkpoint.dropped if line.endswith("which pools the tokens by attention")]
    assert bool(pooled) == ("core" in name)
    same(vit_in(checkpoint)[0], model.forward_features, model.blocks[-1].mlp.fc2.weight, size)


def test_a_projection_behind_the_pooling_is_no_classifier(tmp_path: Path) -> None:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 8}
    declared = pe("vit_pe_core_base_patch16_224", tmp_path, (32, 32))[1]
    model = timm.create_model("vit_pe_core_base_patch16_224", img_size=32, **sizes)
    save_file(model.state_dict(), declared.path)
    checkpoint = read_checkpoint(declared)
    assert "head.weight" not in checkpoint.state
    assert "head.weight: a head that reads the pooling by attention" in checkpoint.dropped


def test_without_timms_config_it_is_refused(tmp_path: Path) -> None:
    declared = pe("vit_pe_core_base_patch16_224", tmp_path, (32, 32))[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="timm's SigLIP towers and Perception Encoders differ in what no tensor shows"):
        read_checkpoint(replace(declared, num_heads=4, mean=OPENAI_CLIP.mean, std=OPENAI_CLIP.std))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # width, depth, heads, hidden width: the paper's table 1 and timm's entries
        ("vit_pe_core_tiny_patch16_384", (192, 12, 3, 768)),
        ("vit_pe_core_small_patch16_384", (384, 12, 6, 1536)),
        ("vit_pe_core_base_patch16_224", (768, 12, 12, 3072)),
        ("vit_pe_core_large_patch14_336", (1024, 24, 16, 4096)),
        ("vit_pe_core_gigantic_patch14_448", (1536, 50, 16, 8960)),
        ("vit_pe_spatial_base_patch16_512", (768, 12, 12, 3072)),
        ("vit_pe_spatial_gigantic_patch14_448", (1536, 50, 16, 8960)),
        ("vit_pe_lang_gigantic_patch14_448", (1536, 47, 16, 8960)),
    ],
)
def test_published_shapes(name: str, numbers: tuple[int, ...]) -> None:
    a = published(name)
    assert (a.embed_dim, a.depth, a.num_heads, a.mlp_width) == numbers


PE = ViTConfig(
    embed_dim=16, depth=1, num_heads=2, patch_size=4, image_size=(16, 16), position="learned", pre_norm=True,
    norm_eps=1e-5, rotary="stretched", rotary_base=10_000.0, rotary_grid=(4, 6), rotary_offset=1.0,
    rotary_first="columns",
)  # fmt: skip


def test_angles_by_hand() -> None:
    # 2 rows and 3 columns; the last patch: row 1 + 1 of 2 stretched to 4, column 2 + 1 of 3 stretched to 6; heads of 8
    # channels: frequencies 1 and 10,000 ** -0.5
    angles = patch_angles(PE, (2, 3), like=torch.zeros(1, dtype=torch.float64))
    assert angles[-1].tolist() == pytest.approx([6, 0.06, 4, 0.04])
    rows = patch_angles(replace(PE, rotary_first="rows", rotary_offset=0), (2, 3), like=torch.zeros(1))
    assert rows[-1].tolist() == pytest.approx([2, 0.02, 4, 0.04])


def test_our_own_file_holds_it_and_another_order_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "own.safetensors", ViT(PE), source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    assert checkpoint.architecture == PE and checkpoint.normalisation != HALF
    with pytest.raises(ValueError, match=r"rotary_offset 1\.0 \(recipe: 0\), rotary_first columns \(recipe: rows\)"):
        load_checkpoint(ViT(replace(PE, rotary_offset=0, rotary_first="rows")), checkpoint)
    with pytest.raises(ValueError, match=r"rotary 'centred' with rotary_offset 1\.0 .* both belong to 'stretched'"):
        replace(PE, rotary="centred", rotary_grid=None)
    with pytest.raises(ValueError, match="rotary_offset is nan; it must be finite"):
        replace(PE, rotary_offset=float("nan"))
    with pytest.raises(ValueError, match="rotary_first is 'x'; there are: rows, columns"):
        replace(PE, rotary_first="x")  # type: ignore[arg-type]
