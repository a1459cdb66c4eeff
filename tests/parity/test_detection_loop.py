"""Our loop and detectron2's own trainer take the same steps."""

import copy
import csv
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer

from backbones.config import ViTConfig
from detection.config import DetectionConfig, HeadsConfig
from detection.task import build_task
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.training.data import Loading, Shard, train_batches
from engine.training.loop import fit
from engine.training.optim import build_optimizer
from engine.training.seeding import derive, seed_all
from scenes.layouts import ScenesIndex

STEPS, BATCH, SEED = 5, 4, 11

CONFIG = DetectionConfig(
    backbone=ViTConfig(embed_dim=32, depth=2, num_heads=2, patch_size=8, image_size=(64, 64)),
    image_size=64,
    scale_jitter=(0.5, 1.5),
    drop_path=0.2,
    heads=HeadsConfig(
        channels=16,
        rpn_convs=1,
        box_convs=1,
        box_width=32,
        mask_convs=1,
        anchor_scale=6.0,
        rpn_samples=16,
        roi_samples=16,
        pre_nms=(50, 50),
        post_nms=(20, 20),
    ),
    run=RunConfig(
        length=Duration(STEPS),
        batch_size=BATCH,
        optim=OptimConfig(base_lr=1e-3, base_batch_size=BATCH, layer_decay=0.8),
        schedule=ScheduleConfig(kind="constant"),
        seed=SEED,
        precision="32-true",
        log_every=1,
    ),
)


class Recorder(HookBase):
    """Seeds each step as our loop does and keeps the losses that the trainer reports."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def before_step(self) -> None:
        seed_all(derive(SEED, "step", self.trainer.iter, 0, 0))

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self.losses.append({name: value for name, (value, _) in latest.items() if "loss" in name})


def logged_losses(path: Path) -> list[dict[str, float]]:
    """Return the losses by step from a run's metrics.csv."""
    steps: list[dict[str, float]] = [{} for _ in range(STEPS)]
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["name"].startswith("loss"):
                steps[int(row["step"]) - 1][row["name"]] = float(row["value"])
    return steps


def test_five_steps_equal_detectron2s_trainer(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    seed_all(SEED)
    task = build_task(CONFIG, data=few_scenes.coco, init=None)
    start = copy.deepcopy(task.model.state_dict())
    fit(task, CONFIG, recipe="parity", out=tmp_path / "run")
    ours = logged_losses(tmp_path / "run" / "metrics.csv")
    trained = copy.deepcopy(task.model.state_dict())

    task.model.load_state_dict(start)
    batches = train_batches(task, seed=SEED, steps=range(STEPS), batch_size=BATCH, shard=Shard(), loading=Loading())
    optim = CONFIG.run.optim
    optimizer = build_optimizer(task.param_groups(optim), optim, peak_lr=optim.lr(BATCH))
    task.model.train()
    trainer = SimpleTrainer(task.model, [batch.data for batch in batches], optimizer)
    recorder = Recorder()
    trainer.register_hooks([recorder])
    trainer.train(0, STEPS)

    for mine, theirs in zip(ours, recorder.losses, strict=True):
        total = theirs.pop("total_loss")
        # the same operations in the same order: equal but for the sum of the terms and the decimals of the log
        assert mine.pop("loss") == pytest.approx(total, rel=1e-5)
        assert mine == pytest.approx(theirs, rel=1e-5)
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=1e-5, atol=1e-7)
    assert sum(ours[0].values()) != sum(ours[-1].values())
