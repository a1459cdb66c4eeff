"""Runs on a device: resumed, with loader processes, in groups of one process, forked by a study."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from backbones.config import ViTConfig
from backbones.vit import ViT
from engine.config import Duration
from engine.records.record import RunRecord, read_record
from engine.training import loop
from engine.training.loop import fit
from engine.training.resume import checkpoints
from engine.training.seeding import derive, seed_all
from mae_transfer.tasks import TASKS
from perf.gpu.checks import group_of_one
from perf.gpu.runs import STUDY
from scenes.layouts import ScenesIndex
from tests.smaller import smaller

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = TASKS["mae"]


def run_of(device: str, scenes: ScenesIndex, out: Path, *, resume: bool = False, **changes: Any) -> RunRecord:
    """Return the record of four steps of a small MAE."""
    config = smaller(SPEC.recipes["mae_base"](), None)
    run = replace(config.run, device=device, length=Duration(4), save_every=Duration(2), **changes)
    config = replace(config, run=run)
    seed_all(derive(0, "weights"))
    task = SPEC.build(config, data=scenes.imagenet, init=None)
    return fit(task, config, recipe="small", out=out, resume=resume)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the last checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(checkpoints(out)[-1], weights_only=True)["model"]
    return found


@pytest.mark.sweep
def test_a_resumed_run_equals_one_that_was_not_stopped(
    device: str, few_scenes: ScenesIndex, tmp_path: Path, comparable: None
) -> None:
    """To the bit, with the kernels of a GPU that repeat their results."""
    run_of(device, few_scenes, tmp_path / "whole", deterministic=True)
    first = run_of(device, few_scenes, tmp_path / "parts", deterministic=True)
    checkpoints(tmp_path / "parts")[-1].unlink()  # back to the second step
    again = run_of(device, few_scenes, tmp_path / "parts", deterministic=True, resume=True)
    assert again.losses == first.losses and again.metrics == first.metrics
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(parts[name], value) for name, value in whole.items())


@pytest.mark.sweep
def test_loader_processes_start_after_the_device_was_used(device: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    torch.zeros(1, device=device).add_(1)
    alone, helped = (
        run_of(device, few_scenes, tmp_path / str(workers), workers=workers, deterministic=True) for workers in (0, 2)
    )
    assert helped.losses == alone.losses


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_group_of_one_process_trains_as_none(
    strategy: str, device: str, few_scenes: ScenesIndex, tmp_path: Path, comparable: None
) -> None:
    alone = run_of(device, few_scenes, tmp_path / "alone", deterministic=True)
    with group_of_one(strategy, device=device) as fabric, patch.object(loop, "make_fabric", lambda *_, **__: fabric):
        shared = run_of(device, few_scenes, tmp_path / "shared", deterministic=True)
        assert torch.distributed.get_backend() == ("nccl" if device == "cuda" else "gloo")
    # shards and wholes sum the norm and the gradients in orders of their own
    assert shared.losses == pytest.approx(alone.losses, rel=1e-5)
    assert weights(tmp_path / "shared").keys() == weights(tmp_path / "alone").keys()


def test_a_group_of_one_process_is_a_group() -> None:
    before = dict(os.environ)
    tiny = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))
    with group_of_one("ddp", device="cpu") as fabric:
        module: Any = fabric.setup_module(ViT(tiny))
        assert isinstance(module._forward_module, DistributedDataParallel)
    vit = ViT(tiny)
    with group_of_one("fsdp", device="cpu") as fabric:
        fabric.setup_module(vit)
        assert all(isinstance(block, FSDPModule) for block in vit.blocks)
    assert dict(os.environ) == before and not torch.distributed.is_initialized()


@pytest.mark.sweep
@pytest.mark.slow
def test_the_runs_of_a_study_are_forked(device: str, tmp_path: Path) -> None:
    """From a process of its own: one that has used CUDA cannot fork others that do."""
    (tmp_path / "study.yaml").write_text(STUDY.format(device=device))
    out = tmp_path / "out"
    done = _python("tools/run_benchmark.py", str(tmp_path / "study.yaml"), "--out", str(out))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [read_record(path) for path in out.glob("*/record.json")]
    assert {record.status for record in records} == {"completed"} and len(records) == 3
    assert {record.config["run"]["device"] for record in records} == {device}


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
