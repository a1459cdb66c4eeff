"""Weights that were made for another image size or patch size than the recipe's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones.config import FAMILY, ViTConfig
from backbones.position import resize_patches, resize_position
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import IMAGENET
from detection.config import DetectionConfig
from detection.task import build_task
from scenes.layouts import ScenesIndex
from tools.train_det import main


def write(path: Path, architecture: ViTConfig) -> ViT:
    torch.manual_seed(0)
    vit = ViT(architecture)
    torch.nn.init.normal_(vit.pos_embed)
    write_checkpoint(path, vit, source="mae", normalisation=IMAGENET)
    return vit


@pytest.mark.parametrize("position_size", [None, 32])
def test_another_image_size_resamples_the_positions(
    position_size: int | None, small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    vit = write(path, replace(small_config.backbone, image_size=(96, 96)))
    config = replace(small_config, position_size=position_size)
    task = build_task(config, data=few_scenes.coco, init=InitialWeights(path=path))
    side = (position_size or 64) // 8
    expected = resize_position(vit.pos_embed[:, 1:], (12, 12), (side, side), 0)
    assert torch.equal(task.model.backbone.vit.pos_embed, expected)
    assert any(f"pos_embed: 12x12 -> {side}x{side} patches, bicubic" in line for line in task.facts.weights.lines())


def test_another_patch_size_is_refused_or_resampled(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    """As ViTDet makes H/16 of MAE's H/14."""
    path = tmp_path / "weights.safetensors"
    vit = write(path, replace(small_config.backbone, patch_size=14, image_size=(56, 56)))
    with pytest.raises(ValueError, match=r"patch_size 14 \(recipe: 8\).*--init-resize-patch resamples"):
        build_task(small_config, data=few_scenes.coco, init=InitialWeights(path=path))
    task = build_task(small_config, data=few_scenes.coco, init=InitialWeights(path=path, resize_patch=True))
    assert torch.equal(task.model.backbone.vit.patch_embed.proj.weight, resize_patches(vit.patch_embed.proj.weight, 8))
    said = "\n".join(task.facts.weights.lines())
    assert "14 -> 8 pixels, bicubic" in said and "pos_embed: 4x4 -> 8x8 patches, bicubic" in said


def test_the_tool_says_it_in_one_line(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, out = tmp_path / "weights.safetensors", tmp_path / "run"
    write(path, replace(FAMILY["vit_demo_patch8"], patch_size=16, image_size=(96, 96)))
    arguments = ["tiny", "--data", str(few_scenes.coco), "--init", str(path), "--steps", "1", "--batch-size", "2"]
    assert main([*arguments, "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "patch_size 16 (recipe: 8)" in line and "--init-resize-patch" in line
    assert not out.exists()
    assert main([*arguments, "--out", str(out), "--init-resize-patch"]) == 0
    report = "\n".join(json.loads((out / "record.json").read_text())["weights_report"])
    assert "16 -> 8 pixels" in report and "6x6 -> 8x8 patches" in report
