"""Tiny random weights of every family of ViTs train for a step in every task, and do all else that a run does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from backbones.config import ViTConfig
from backbones.param_groups import param_groups
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from engine.cost import count_flops
from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from tools import export_onnx, probe, train_cls, train_det, train_seg

PLAIN = ViTConfig(
    embed_dim=24, depth=4, num_heads=2, patch_size=8, image_size=(64, 64), mlp_ratio=2.0, position="learned"
)
DINOV3 = replace(
    PLAIN, position="none", rotary="centred", registers=2, layer_scale=0.1, qkv_bias="qv", norm_eps=1e-5
)  # fmt: skip
FAMILIES: dict[str, ViTConfig] = {
    "mae": replace(PLAIN, position="sincos"),
    "beit": replace(PLAIN, position="none", qkv_bias="qv", layer_scale=0.1, relative_position="table"),
    "dinov2": replace(PLAIN, registers=2, layer_scale=0.1),
    "dinov2_giant": replace(PLAIN, registers=2, layer_scale=0.1, activation="swiglu"),
    "siglip": replace(PLAIN, activation="gelu_tanh"),
    "clip": replace(PLAIN, pre_norm=True, norm_eps=1e-5, activation="quick_gelu"),
    "aimv2": replace(
        PLAIN, norm="rms", norm_eps=1e-5, bias=False, qkv_bias="none", patch_norm=True, activation="swiglu"
    ),
    "aimv2_native": replace(
        PLAIN,
        position="computed",
        norm="rms",
        norm_eps=1e-5,
        bias=False,
        qkv_bias="none",
        patch_norm=True,
        activation="swiglu",
    ),
    "eva02": replace(
        PLAIN,
        rotary="stretched",
        rotary_base=1e4,
        rotary_grid=(16, 16),
        mlp_norm=True,
        qkv_bias="qv",
        activation="swiglu",
    ),
    "deit3": replace(PLAIN, layer_scale=0.1),
    "sam": replace(PLAIN, relative_position="decomposed", window_size=3, global_blocks=(1, 3)),
    "dinov3": DINOV3,
    "dinov3_huge": replace(DINOV3, qkv_bias="none", activation="swiglu"),
}
NO_CLASS_TOKEN = ("siglip", "aimv2", "aimv2_native", "sam")
TOOLS: dict[str, Any] = {"imagenet": train_cls, "ade20k": train_seg, "coco": train_det}


def weights(family: str, folder: Path) -> Path:
    vit = ViT(FAMILIES[family], class_token=family not in NO_CLASS_TOKEN)
    write_checkpoint(folder / "weights.safetensors", vit, source="test")
    return folder / "weights.safetensors"


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        pytest.param(f, layout, marks=() if (f, layout) == ("dinov3", "coco") else pytest.mark.sweep)
        for f in FAMILIES
        for layout in TOOLS
    ],
)
def test_a_step_of_every_task(family: str, layout: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["tiny", "--data", str(few_scenes.root / layout), "--init", str(weights(family, tmp_path))]
    flags += ["--init-architecture", "file", "--steps", "1", "--batch-size", "4", "--out", str(out)]
    if family == "dinov3":
        flags += ["--activation-checkpointing"]
    if family in NO_CLASS_TOKEN and layout == "imagenet":
        flags += ["--pooling", "mean"]
    assert TOOLS[layout].main(flags) == 0
    built = read_record(out).architecture
    for name in ("activation", "norm_eps", "pre_norm", "qkv_bias", "rotary", "norm", "mlp_norm", "bias"):
        assert built[name] == getattr(FAMILIES[family], name)
    if family == "sam":  # of others the windows are the recipe's
        assert (built["window_size"], built["global_blocks"]) == (3, [1, 3])
    if (family, layout) not in (("dinov3", "imagenet"), ("eva02", "coco")):  # of the image, and of windows
        return
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    assert export_onnx.main([str(out), "--out", str(tmp_path / "model.onnx")]) == 0
    if layout == "coco":  # the exporter has compared its maps with PyTorch's
        return
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (logits,) = session.run(None, {"image": np.zeros((2, 3, 64, 64), dtype=np.float32)})
    assert logits.shape == (2, 8) and np.isfinite(logits).all()


def test_probes_read_rotary_positions(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    flags = ["vit_demo_patch8", "--data", str(few_scenes.imagenet), "--init", str(weights("dinov3", tmp_path))]
    flags += ["--init-architecture", "file", "--linear-epochs", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert probe.main(flags) == 0
    assert "depth04_mean_k20" in read_record(tmp_path / "out" / "knn").metrics


def test_the_planner_counts_the_products_of_a_plain_vit() -> None:
    """Turning multiplies channel by channel: no product of matrices is added."""
    image = torch.zeros(1, 3, 64, 64)
    rotary, plain = (count_flops(ViT(a), image) for a in (DINOV3, replace(DINOV3, rotary="none")))
    assert rotary == plain > 0
    with FakeTensorMode():
        assert ViT(DINOV3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3 + 64, 24)


def test_layer_decay_numbers_all_of_it() -> None:
    vit = ViT(DINOV3)
    groups = param_groups(vit, weight_decay=0.1, layer_decay=0.5, depth=4)
    layers = {name: group.layer for group in groups for name in group.names}
    assert layers.keys() == dict(vit.named_parameters()).keys()
    assert (layers["reg_token"], layers["blocks.2.attn.q_bias"], layers["norm.weight"]) == (0, 3, 5)
