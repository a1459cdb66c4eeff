"""Compiled blocks: the same training up to rounding, the same names of weights, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.memory.live import LiveMemory
from engine.records.record import read_record
from engine.training.block_modes import checkpoint_activations, compile_blocks
from engine.training.resume import checkpoints
from engine.training.sharding import blocks
from pretraining.mae.config import MAEConfig
from pretraining.mae.task import autoencoder
from scenes.layouts import ScenesIndex
from tests.on_device import DEVICES, need
from tools import evaluate, pretrain

CPU = torch.device("cpu")
TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))
RUN = RunConfig(length=Duration(1), batch_size=2, optim=OptimConfig(base_lr=1e-3), schedule=ScheduleConfig())
MAE = MAEConfig(backbone=TINY, run=RUN, decoder_dim=12, decoder_depth=3, decoder_heads=3)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_run_trains_as_one_that_is_not(device: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    need(device)
    data = str(few_scenes.root / "imagenet")
    flags = ["tiny", "--data", data, "--steps", "2", "--batch-size", "4", "--precision", "32-true", "--device", device]
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

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(ValueError, match=r"RuntimeError: no working compiler.*leave --compile out"):
        compile_blocks(ViT(TINY), CPU)


def test_the_decoder_of_mae_has_blocks_too() -> None:
    """They are compiled, units of a sharded run, and computed again: the same numbers."""
    models = [autoencoder(MAE, ViT(TINY)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    assert blocks(models[0]) == [*models[0].encoder.blocks, *models[0].decoder_blocks]
    checkpoint_activations(models[1])
    batch = torch.randn(2, 3, 32, 32), torch.rand(2, 16), ["a", "b"]
    kept, gradients = [], []
    for model in models:
        memory = LiveMemory()
        memory.hold(model.parameters())
        with memory:
            before = memory.live
            loss = model(batch)["reconstruction"]
            kept.append(memory.live - before)
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] * 2 < kept[0]
