"""Compiled blocks: the same training up to rounding, the same names of weights, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.records.record import read_record
from engine.training.block_modes import compile_blocks
from engine.training.resume import checkpoints
from scenes.layouts import ScenesIndex
from tools import evaluate, pretrain

CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_compiled_run_trains_as_one_that_is_not(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    data = str(few_scenes.root / "imagenet")
    flags = ["tiny", "--data", data, "--steps", "2", "--batch-size", "4", "--precision", "32-true"]
    assert pretrain.main([*flags, "--out", str(tmp_path / "eager")]) == 0
    assert pretrain.main([*flags, "--compile", "--out", str(tmp_path / "compiled")]) == 0
    records = [read_record(tmp_path / name) for name in ("eager", "compiled")]
    assert [record.config["run"]["compile"] for record in records] == [False, True]
    # one step of AdamW on sums in another order
    assert records[1].metrics["val_loss"] == pytest.approx(records[0].metrics["val_loss"], rel=1e-4)
    states = [
        torch.load(checkpoints(tmp_path / name)[-1], weights_only=True)["model"] for name in ("eager", "compiled")
    ]
    assert states[0].keys() == states[1].keys()
    assert evaluate.main([str(tmp_path / "compiled")]) == 0


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="the model has no transformer blocks"):
        compile_blocks(nn.Linear(2, 2), CPU)


def test_where_nothing_compiles_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> object:
        raise RuntimeError("no\nworking compiler")

    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2)])
    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(ValueError, match=r"RuntimeError: no working compiler.*leave --compile out"):
        compile_blocks(model, CPU)
