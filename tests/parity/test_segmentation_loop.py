"""Five steps of our loop give the losses of mmengine's own train_step: same weights, batches and optimiser."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbones.config import ViTConfig
from backbones.weights.normalisation import Normalisation
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.training.data import Loading, Shard, train_batches
from engine.training.loop import fit
from engine.training.optim import build_optimizer
from engine.training.seeding import derive, seed_all
from segmentation.config import HeadConfig, SegmentationConfig
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.task import SegmentationTask, build_task

STEPS = 5


@pytest.fixture
def config() -> SegmentationConfig:
    """A tiny model with every source of randomness on: dropout, drop path, augmentation."""
    return SegmentationConfig(
        backbone=ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32)),
        out_indices=(0, 1, 2, 3),
        head=HeadConfig(channels=8, aux_channels=8),
        resize=(32, 32),
        drop_path=0.3,
        run=RunConfig(
            length=Duration(STEPS),
            batch_size=4,
            optim=OptimConfig(base_lr=1e-2, base_batch_size=4, layer_decay=0.7),
            schedule=ScheduleConfig(kind="constant"),
            seed=7,
            precision="32-true",
        ),
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six noisy images in the ADE20K layout."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(6):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            label = rng.integers(0, 4, (4, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.png")
            Image.fromarray(label).save(tmp_path / "annotations" / split / f"{number}.png")
    return tmp_path


def seeded_task(config: SegmentationConfig, data: Path) -> SegmentationTask:
    """The task with the weights of its seed."""
    seed_all(derive(config.run.seed, "weights"))
    return build_task(config, data=data, init=None)


def test_loop_equals_mmengine(config: SegmentationConfig, data: Path, tmp_path: Path) -> None:
    from mmengine.config import Config
    from mmengine.optim import OptimWrapper

    ours: list[dict[str, float]] = []
    task = seeded_task(config, data)
    task.model.register_forward_hook(
        lambda _, inputs, losses: ours.append({name: float(value.detach()) for name, value in losses.items()})
    )
    fit(task, config, recipe="parity", out=tmp_path / "run")

    # mmengine's side: the model from a config file's text, as its Runner reads one
    nodes = upernet(config, num_classes=3, normalisation=Normalisation())
    written = Config({"model": nodes}).pretty_text
    seed_all(derive(config.run.seed, "weights"))
    model = build_model(Config.fromstring(written, ".py").model)
    model.train()
    run = config.run
    other = seeded_task(config, data)  # for its batches and the layout of its parameter groups
    parameters = {f"segmentor.{name}": p for name, p in model.named_parameters()}
    groups = [
        replace(group, params=tuple(parameters[name] for name in group.names))
        for group in other.param_groups(run.optim)
    ]
    wrapper = OptimWrapper(build_optimizer(groups, run.optim, peak_lr=run.optim.lr(run.batch_size)))
    batches = train_batches(other, seed=run.seed, steps=range(STEPS), batch_size=4, shard=Shard(), loading=Loading())
    theirs = []
    for step, batch in enumerate(batches):
        seed_all(derive(run.seed, "step", step, 0, 0))
        log = model.train_step(batch.data, wrapper)
        theirs.append({name: float(value.detach()) for name, value in log.items() if "." in name and "loss" in name})

    assert len(ours) == len(theirs) == STEPS
    assert sorted(ours[0]) == ["aux.loss_ce", "decode.loss_ce"]
    assert ours[0] != ours[-1]
    for a, b in zip(ours, theirs, strict=True):
        # float32, the head's sums in another order
        assert a == pytest.approx(b, rel=1e-6)
    moved = moved_by_noise(task.model)
    for name, parameter in task.model.named_parameters():
        if name not in moved:
            torch.testing.assert_close(parameter, parameters[name], rtol=1e-4, atol=1e-5, msg=name)


def moved_by_noise(model: nn.Module) -> set[str]:
    """Names of biases whose gradient is zero but for rounding, which Adam makes steps of full length of.

    A bias of the keys adds the same to every score of a query, which softmax does not see; the pyramid's biases are
    taken off with the mean by the batch norms that follow.
    """
    names = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    return {name for name in names if name.endswith("attn.qkv.bias") or name.startswith("segmentor.neck.")}
