"""The recipes: what they share, what they say of themselves, and that arms differ in their weights alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import Fit, load_checkpoint
from backbones.weights.read import read_checkpoint
from engine.recipe import departures
from segmentation.recipes import (
    RECIPES,
    beit_base_100ep,
    beit_large_100ep,
    eomt_large_ade20k,
    linear_base,
    mae_base_100ep,
    mae_base_long_seq,
    mae_base_mmseg,
    mae_large_100ep,
)

OWN_DATA = {"tiny", "small", "tiny_eomt"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_names_its_command_and_its_departures(name: str) -> None:
    recipe = RECIPES[name]
    assert f"tools/train_seg.py {name} --data" in (recipe.__doc__ or "")
    said = departures(recipe, recipe())
    assert bool(said) == (name not in OWN_DATA)
    if name not in OWN_DATA:
        assert any("float32" in line for line in said)
        assert any("1/1499" in line for line in said) == (not name.startswith("eomt"))  # of mmengine's schedules


@pytest.mark.parametrize(("mae", "beit"), [(mae_base_100ep, beit_base_100ep), (mae_large_100ep, beit_large_100ep)])
def test_arms_differ_in_the_architecture_of_their_weights_alone(mae, beit) -> None:
    ours, theirs = mae(), beit()
    assert mae.departs == beit.departs
    assert replace(theirs, backbone=ours.backbone) == ours
    own = {"position": "sincos", "qkv_bias": "fused", "layer_scale": None}
    assert replace(theirs.backbone, **own) == ours.backbone


def test_the_other_reproduction_differs_in_rate_and_decay() -> None:
    ours, theirs = mae_base_mmseg(), mae_base_long_seq()
    assert (theirs.run.optim.base_lr, theirs.run.optim.layer_decay) == (8e-5, 0.8)
    optim = replace(theirs.run.optim, base_lr=1e-4, layer_decay=0.65)
    backbone = replace(theirs.backbone, layer_scale=1.0)
    assert replace(theirs, run=replace(theirs.run, optim=optim), backbone=backbone) == ours


def test_the_probe_is_frozen() -> None:
    config = linear_base()
    assert config.freeze_backbone and config.head.kind == "linear" and config.drop_path == 0
    assert config.backbone.relative_position == "none"  # a table that cannot learn would say nothing


@pytest.mark.parametrize(
    ("recipe", "source", "file"),
    [
        (mae_base_100ep, "mae", {}),
        (mae_base_mmseg, "mae", {}),
        (mae_base_100ep, "moco_v3", {}),
        (
            beit_base_100ep,
            "beit",
            {"position": "none", "qkv_bias": "qv", "layer_scale": 0.1, "relative_position": "shared_table"},
        ),
    ],
)
def test_weights_of_each_arm_fit(recipe, source: str, file: dict[str, object], tmp_path: Path) -> None:
    tiny = {"embed_dim": 64, "depth": 2, "num_heads": 1, "patch_size": 8}
    made = ViTConfig(**tiny, image_size=(32, 32), **file)
    vit = ViT(made)
    checkpoint = Checkpoint(
        path=tmp_path / "own", digest=lambda: "0" * 64, state=vit.state_dict(), architecture=made, source="own"
    )
    write_as(checkpoint, source, tmp_path / "weights.pth")
    target = ViT(replace(recipe().backbone, **tiny, image_size=(64, 64)), final_norm=False)
    half = (0.5, 0.5, 0.5)  # of the pixels, which BEiT's file does not tell
    declared = InitialWeights(path=tmp_path / "weights.pth", source=source, num_heads=1, mean=half, std=half)
    report = load_checkpoint(target, read_checkpoint(declared))
    relative = "blocks.0.attn.relative_position_bias_table: 0" in report.new
    assert relative == (source != "beit")
    assert ("blocks.0.gamma_1: 1" in report.new) == (recipe is mae_base_mmseg)


def test_dinov2_with_registers_fits_eomt(tmp_path: Path) -> None:
    """Patches of 14 px are resampled to 16; the file has every tensor of the ViT, and a mask token besides."""
    tiny = {"embed_dim": 64, "depth": 2, "num_heads": 1}
    made = ViTConfig(
        **tiny, patch_size=14, image_size=(28, 28), position="learned", registers=4, layer_scale=1e-5
    )  # facebookresearch/dinov2, hub/backbones.py
    vit = ViT(made)
    names = [("reg_token", "register_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")]
    state = {"mask_token": torch.zeros(1, 64)}
    for name, value in vit.state_dict().items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        state[name] = value
    torch.save(state, tmp_path / "weights.pth")
    target = ViT(replace(eomt_large_ade20k().backbone, **tiny, image_size=(64, 64)))
    declared = InitialWeights(path=tmp_path / "weights.pth", source="dinov2", num_heads=1)
    report = load_checkpoint(target, read_checkpoint(declared), Fit(resize_patch=True))
    assert not report.new and [line.split(":")[0] for line in report.dropped] == ["mask_token"]
    assert [line.split(":")[0] for line in report.resized] == ["pos_embed", "patch_embed.proj.weight"]
    assert torch.equal(target.blocks[1].mlp.fc2.weight, vit.blocks[1].mlp.fc2.weight)
