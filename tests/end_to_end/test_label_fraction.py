"""Detection and segmentation on a part of the labels, and with a ViT that does not learn."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from tools import pretrain, train_det, train_seg

TOOLS: dict[str, Any] = {"coco": train_det, "ade20k": train_seg}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [pytest.param("coco", marks=pytest.mark.sweep), "ade20k"])
def test_a_part_of_the_labels_on_a_frozen_vit(layout: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    data = getattr(few_scenes, layout)
    weights = tmp_path / "mae"
    given = ["--data", str(few_scenes.imagenet), "--out", str(weights), "--steps", "1", "--batch-size", "4"]
    assert pretrain.main(["tiny", *given]) == 0
    common = ["--steps", "2", "--batch-size", "2", "--init", str(weights / "backbone.safetensors"), "--drop-path", "0"]
    notes = []
    for fraction, seed in ((0.5, 0), (0.5, 1), (1.0, 0)):
        out = tmp_path / f"run{fraction}{seed}"
        flags = ["--label-fraction", str(fraction), "--seed", str(seed), "--freeze-backbone"]
        assert TOOLS[layout].main(["tiny", "--data", str(data), "--out", str(out), *common, *flags]) == 0
        record = read_record(out)
        (note,) = (line for line in record.data_notes if "images used" in line)
        notes.append(note)
        assert record.cost.flops_per_image == 0 and record.cost.frozen_flops_per_image > 0
        assert record.cost.training_flops == record.cost.frozen_flops_per_image  # a forward pass alone
        assert record.train_images == {0.5: 6, 1.0: 12}[fraction]
    assert notes[0] == notes[1]  # the run's seed does not choose
    assert "6 of 12 images used (50 %, seed 0; list sha256 " in notes[0] and "12 of 12" in notes[2]
    state = torch.load(next((tmp_path / "run0.50/checkpoints").glob("*.pt")), weights_only=True)
    before = load_file(weights / "backbone.safetensors")
    learned = {key: value for key, value in state["model"].items() if "blocks.0.attn.qkv.weight" in key}
    (now,) = learned.values()
    assert torch.equal(now, next(value for key, value in before.items() if key.endswith("blocks.0.attn.qkv.weight")))


def test_stochastic_depth_of_a_frozen_vit_is_refused(few_scenes: ScenesIndex, tmp_path: Path, capsys: Any) -> None:
    flags = ["--out", str(tmp_path / "x"), "--freeze-backbone", "--drop-path", "0.1"]
    assert train_det.main(["tiny", "--data", str(few_scenes.coco), *flags]) == 1
    assert "freeze_backbone with drop_path 0.1" in capsys.readouterr().err
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == "[]"
