"""The EMA of the weights, float16's loss scale and activation checkpointing in the loop."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn

from engine.config import Duration
from engine.training import loop
from engine.training.ema import EMA, with_ema
from engine.training.loop import fit
from engine.training.resume import checkpoints, load_model


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def _with(config: Any, **changes: Any) -> Any:
    return replace(config, run=replace(config.run, **changes))


def test_ema_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(8.0)
    ema = EMA(layer, 0.75)
    for value in (4.0, 0.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        ema.update()
    assert ema.values["weight"].item() == 5.25  # 0.75 * (0.75 * 8 + 0.25 * 4) + 0.25 * 0
    assert ema.initial_share(2) == 0.5625
    with with_ema(ema):
        assert layer.weight.item() == 5.25
    assert layer.weight.item() == 0.0 and ema.values["weight"].item() == 5.25


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert list(EMA(model, 0.9).values) == ["weight"]


def test_weights_come_back_when_the_evaluation_fails() -> None:
    layer = nn.Linear(1, 1, bias=False)
    ema = EMA(layer, 0.5)
    with torch.no_grad():
        layer.weight.add_(1)
    before = layer.weight.item()
    with pytest.raises(RuntimeError), with_ema(ema):
        raise RuntimeError
    assert layer.weight.item() == before


def test_the_run_keeps_an_ema_of_every_step_and_evaluates_it(toy_task, toy_config, tmp_path, capsys) -> None:
    config = _with(toy_config, ema_decay=0.5, save_every=Duration(1), keep_last=7, eval_every=None)
    task = toy_task()
    expected = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    record = fit(task, config, recipe="toy", out=tmp_path)
    saved = [_read(path) for path in checkpoints(tmp_path)]
    for state in saved:
        for name, value in expected.items():
            expected[name] = 0.5 * value + 0.5 * state["model"][name]
            torch.testing.assert_close(state["average"][name], expected[name])
    assert not torch.equal(saved[-1]["model"]["head.weight"], saved[-1]["average"]["head.weight"])

    again = toy_task()
    assert load_model(checkpoints(tmp_path)[-1], again.model) == 7
    again.model.eval()
    assert torch.equal(again.model.head.weight, saved[-1]["average"]["head.weight"])
    points = again.val_data.points
    error = (again.model.predict(points) - points.sum(dim=1)).abs().mean().item()
    assert record.metrics["error"] == pytest.approx(error, abs=0.05)  # the validation points carry noise
    printed = capsys.readouterr().out
    assert "the EMA of the weights (decay 0.5 per step)" in printed and "still holds" not in printed


def test_training_goes_on_from_the_weights(toy_task, toy_config, tmp_path) -> None:
    """An EMA that is evaluated in between leaves no trace in the weights."""
    for name, decay in (("without", None), ("with", 0.9)):
        fit(toy_task(), _with(toy_config, ema_decay=decay), recipe="toy", out=tmp_path / name)
    plain, kept = (_read(checkpoints(tmp_path / name)[-1]) for name in ("without", "with"))
    assert all(torch.equal(plain["model"][name], kept["model"][name]) for name in plain["model"])


@pytest.mark.parametrize("read", [9, 33])
def test_resumed_ema_equals_uninterrupted(read, toy_task, toy_config, tmp_path) -> None:
    config = _with(toy_config, ema_decay=0.9)
    record = fit(toy_task(), config, recipe="toy", out=tmp_path / "whole")
    task = toy_task()
    task.train_data.signal_at_read = read
    assert fit(task, config, recipe="toy", out=tmp_path / "parts").status == "interrupted"
    resumed = fit(toy_task(), config, recipe="toy", out=tmp_path / "parts", resume=True)
    assert resumed.evaluations == record.evaluations
    whole, parts = (_read(checkpoints(tmp_path / name)[-1])["average"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_ema_that_hardly_moved_is_said(toy_task, toy_config, tmp_path, capsys) -> None:
    fit(toy_task(), _with(toy_config, ema_decay=0.9999), recipe="toy", out=tmp_path)
    assert "warning: the EMA still holds 100% of the initial weights at the end." in capsys.readouterr().out


def test_checkpoint_without_an_ema_is_refused(toy_task, toy_config, tmp_path) -> None:
    config = _with(toy_config, ema_decay=0.9)
    fit(toy_task(), config, recipe="toy", out=tmp_path)
    for path in checkpoints(tmp_path):
        state = _read(path)
        del state["average"]
        torch.save(state, path)
    with pytest.raises(ValueError, match=r"step-00000007\.pt: holds no EMA of the weights, which this run needs"):
        fit(toy_task(), config, recipe="toy", out=tmp_path, resume=True)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_out_of_range_is_refused(decay, toy_config) -> None:
    with pytest.raises(ValueError, match=r"ema_decay is .*at least 0 and below 1"):
        _with(toy_config, ema_decay=decay)


@pytest.fixture
def float16_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a GPU, which float16 training needs: PyTorch's own loss scale runs on a CPU too."""

    def make(*_: object, **__: object) -> Fabric:
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", device="cpu")])

    monkeypatch.setattr(loop, "make_fabric", make)


def test_float16_resumes_with_its_loss_scale(float16_on_cpu, toy_task, toy_config, tmp_path) -> None:
    config = _with(toy_config, precision="16-mixed")
    record = fit(toy_task(), config, recipe="toy", out=tmp_path / "whole")
    task = toy_task()
    task.train_data.signal_at_read = 33
    fit(task, config, recipe="toy", out=tmp_path / "parts")
    middle = checkpoints(tmp_path / "parts")[-1]
    assert 0 < _read(middle)["scaler"]["scale"] < 65536  # the first step overflows at the initial scale
    resumed = fit(toy_task(), config, recipe="toy", out=tmp_path / "parts", resume=True)
    assert resumed.evaluations == record.evaluations
    states = [_read(checkpoints(tmp_path / name)[-1]) for name in ("whole", "parts")]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert all(torch.equal(states[0]["model"][name], value) for name, value in states[1]["model"].items())
    assert "loss_scale" in (tmp_path / "whole" / "metrics.csv").read_text()


def test_a_step_that_float16_skipped_leaves_the_ema_alone(
    float16_on_cpu, toy_task, toy_config, tmp_path, monkeypatch
) -> None:
    taken, update = [], EMA.update
    monkeypatch.setattr(EMA, "update", lambda ema: taken.append(update(ema)))
    fit(toy_task(), _with(toy_config, precision="16-mixed", ema_decay=0.5), recipe="toy", out=tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    norms = [float(row.split(",")[2]) for row in rows if ",grad_norm," in row]
    finite = sum(map(math.isfinite, norms))
    assert len(norms) == 7 and 0 < finite < 7  # the first overflow at the initial scale
    assert len(taken) == finite


def test_norm_of_float16_is_that_of_the_gradient(float16_on_cpu, toy_task, toy_config, tmp_path) -> None:
    """The logged norm is without the loss scale of 65,536, clipped or not."""
    norms = []
    for clip in (1e9, None):
        config = _with(toy_config, precision="16-mixed", optim=replace(toy_config.run.optim, clip_norm=clip))
        fit(toy_task(), config, recipe="toy", out=tmp_path / str(clip))
        rows = (tmp_path / str(clip) / "metrics.csv").read_text().splitlines()
        norms.append([row for row in rows if ",grad_norm," in row])
    assert norms[0] == norms[1] and len(norms[0]) == 7
    finite = [norm for row in norms[0] if math.isfinite(norm := float(row.split(",")[2]))]
    assert len(finite) >= 4 and max(finite) < 100  # the others overflowed, and their steps were skipped


def test_float16_on_a_cpu_is_refused(toy_task, toy_config, tmp_path) -> None:
    with pytest.raises(ValueError, match="16-mixed needs a GPU"):
        fit(toy_task(), _with(toy_config, precision="16-mixed"), recipe="toy", out=tmp_path)


def test_shares_in_float16_are_refused(toy_config) -> None:
    with pytest.raises(ValueError, match=r"strategy fsdp does not train in 16-mixed"):
        _with(toy_config, precision="16-mixed", strategy="fsdp")


def test_a_model_that_cannot_checkpoint_activations_is_refused(toy_task, toy_config, tmp_path) -> None:
    with pytest.raises(ValueError, match="no part that can compute its activations again"):
        fit(toy_task(), _with(toy_config, activation_checkpointing=True), recipe="toy", out=tmp_path)
    assert not (tmp_path / "config.json").exists()
