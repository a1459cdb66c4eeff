"""MoCo v3 as a task: momentum after each step, exact resume, its backbone, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import classification.task
import pretraining.moco_v3.task
from backbones.weights.declaration import InitialWeights
from backbones.weights.read import read_checkpoint
from classification.config import ClassificationConfig
from engine.config import Duration
from engine.records.record import read_record
from engine.task import ActsAfterSteps
from engine.training.loop import fit
from engine.training.resume import checkpoints
from engine.training.stop import NonFiniteError
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.recipes import RECIPES


@pytest.fixture
def config(mae_config: MAEConfig) -> MoCoConfig:
    run = replace(mae_config.run, precision="32-true")
    return MoCoConfig(backbone=mae_config.backbone, run=run, hidden=24, width=8)


def test_momentum_follows_once_a_step(config: MoCoConfig, data: Path) -> None:
    run = replace(config.run, length=Duration(2), accumulate=2)
    task = pretraining.moco_v3.task.build_task(replace(config, run=run, momentum=0.5), data=data, init=None)
    assert isinstance(task, ActsAfterSteps)
    with torch.no_grad():
        for parameter in task.model.base.parameters():
            parameter.add_(1.0)
    before = {name: p.clone() for name, p in task.model.momentum.named_parameters()}
    batch = (torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), [""] * 4)

    def moved() -> float:
        distances = [(p - before[name]).mean().item() for name, p in task.model.momentum.named_parameters()]
        return sum(distances) / len(distances)

    task.model.train()(batch)
    assert moved() == 0  # a micro-batch moves nothing
    task.after_step(1, 2)
    assert moved() == pytest.approx(0.25, abs=1e-5)  # at half of the run it keeps 0.75
    task.after_step(2, 2)
    assert moved() == pytest.approx(0.25, abs=1e-5)  # and all at its end


def test_the_loop_asks_for_it(config: MoCoConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = replace(config.run, length=Duration(3), accumulate=2)
    task = pretraining.moco_v3.task.build_task(replace(config, run=run), data=data, init=None)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(task, "after_step", lambda *steps: asked.append(steps))
    fit(task, replace(config, run=run), recipe="tiny", out=tmp_path / "run")
    assert asked == [(1, 3), (2, 3), (3, 3)]


def test_diverged_weights_are_the_loops_error(config: MoCoConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.moco_v3.task.build_task(config, data=data, init=None)
    with torch.no_grad():
        task.model.base.encoder.get_parameter("norm.weight")[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the loss is not finite at step 0 .*images of the batch: (cat|dog)/"):
        fit(task, config, recipe="tiny", out=tmp_path / "run")


def test_task(config: MoCoConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.moco_v3.task.build_task(config, data=data, init=None)
    assert (task.name, task.facts.train_images, task.facts.val_images) == ("moco_v3", 6, 4)
    decay = {name: g.weight_decay for g in task.param_groups(config.run.optim) for name in g.names}
    assert set(decay) == {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert set(decay.values()) == {config.run.optim.weight_decay}  # norms and biases too
    batch = task.collate([task.val_data[i] for i in range(4)])
    task.model.eval()
    with torch.no_grad():
        results = task.predict(batch)
        total = task.model(batch)["contrast"].item()
    scores = task.score(results)
    assert scores["val_loss"] == pytest.approx(total, rel=1e-6)
    assert set(scores) == {"val_loss", "feature_spread", "feature_rank"}
    with torch.no_grad():  # a remainder of one image, whose loss is 0, changes nothing
        assert task.score([*results, *task.predict(task.collate([task.val_data[0]]))]) == scores
    with pytest.raises(ValueError, match="no image of split val could be evaluated"):
        task.score([])
    (picture,) = task.draw(results, tmp_path / "pictures")
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_another_evaluation_batch_is_another_run(config: MoCoConfig, data: Path, tmp_path: Path) -> None:
    """An image is told from the others of its evaluation batch: val_loss of 2 and of 4 images cannot be one curve."""
    losses = []
    for size in (4, 2):
        run = replace(config.run, length=Duration(1), eval_batch_size=size)
        torch.manual_seed(0)
        task = pretraining.moco_v3.task.build_task(replace(config, run=run), data=data, init=None)
        record = fit(task, replace(config, run=run), recipe="tiny", out=tmp_path / str(size))
        losses.append((record.metrics["val_loss"], record.run_id))
    assert losses[0][0] > losses[1][0] and losses[0][1] != losses[1][1]
    with pytest.raises(ValueError, match=r"cannot be resumed with this one: config.run.eval_batch_size: 4 -> 2\."):
        fit(task, replace(config, run=run), recipe="tiny", out=tmp_path / "4", resume=True)


def test_resume_is_exact_and_the_backbone_is_read(
    config: MoCoConfig, class_config: ClassificationConfig, data: Path, tmp_path: Path
) -> None:
    run = replace(config.run, length=Duration(4), save_every=Duration(2), accumulate=2, keep_last=3)
    config = replace(config, run=run, momentum=0.5)

    def train(out: Path) -> dict[str, Any]:
        torch.manual_seed(0)
        task = pretraining.moco_v3.task.build_task(config, data=data, init=None)
        fit(task, config, recipe="tiny", out=out, resume=True)
        return torch.load(checkpoints(out)[-1], weights_only=True)["model"]

    whole = train(tmp_path / "run")
    checkpoints(tmp_path / "run")[-1].unlink()  # back to step 2
    again = train(tmp_path / "run")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    record = read_record(tmp_path / "run")
    assert list(record.losses) == ["contrast", "feature_spread", "feature_rank", "loss"]
    assert record.losses["loss"] == record.losses["contrast"]  # the others are watched, not trained for
    assert 0 < record.losses["feature_spread"] < 1.1
    assert 1 <= record.losses["feature_rank"] <= 1.01  # two images differ along one line
    assert {"val_loss", "feature_spread", "feature_rank"} == set(record.metrics)

    path = tmp_path / "run" / "backbone.safetensors"
    checkpoint = read_checkpoint(InitialWeights(path=path))
    assert checkpoint.source == "moco_v3"
    for name, value in checkpoint.state.items():  # the trained encoder, its patch projection included
        assert torch.equal(value, whole[f"base.encoder.{name}"])
    transferred = classification.task.build_task(class_config, data=data, init=InitialWeights(path=path))
    assert transferred.facts.weights.source == "moco_v3"


@pytest.mark.parametrize(
    ("changes", "run", "said"),
    [
        ({"momentum": 1.0}, {}, "momentum is 1.0; it must be at least 0 and below 1"),
        ({"temperature": 0.0}, {}, "temperature is 0.0; it must be above 0"),
        ({"crop_scale": (0.5, 0.2)}, {}, "crop_scale is 0.5 0.2; it is the least and the largest share of the area"),
        ({}, {"accumulate": 4}, "batch_size 4 with accumulate 4 leaves one image at a time"),
    ],
)
def test_config_refuses(changes: dict[str, Any], run: dict[str, Any], said: str, config: MoCoConfig) -> None:
    with pytest.raises(ValueError, match=said):
        replace(config, run=replace(config.run, **run), **changes)


def test_arms_see_the_same_number_of_images() -> None:
    for name in ("tiny", "small"):
        mae, moco = RECIPES[name](), RECIPES[f"{name}_moco_v3"]()
        assert isinstance(moco, MoCoConfig)
        assert (mae.run.length, mae.run.batch_size) == (moco.run.length, moco.run.batch_size)
