"""Two gloo processes that share the weights (FSDP) take the steps of two that each hold all (DDP)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.records.record import read_record
from engine.records.results_file import read_results
from engine.training.resume import checkpoints
from scenes.layouts import ScenesIndex
from tools import evaluate

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = """
import os
import sys
from dataclasses import replace
from pathlib import Path
from torch.distributed.fsdp import FSDPModule
from engine.config import Duration
from engine.training.loop import fit
from engine.training.seeding import seed_all
from pretraining.mae.task import build_task
from pretraining.recipes import tiny

config = tiny()
optim = replace(config.run.optim, clip_norm=0.1)
schedule = replace(config.run.schedule, warmup=Duration(1))
run = replace(config.run, length=Duration(4), batch_size=8, accumulate=2, precision=sys.argv[4], schedule=schedule,
              optim=optim, strategy=sys.argv[3], ema_decay=0.5, save_every=Duration(2),
              eval_batch_size=1)
config = replace(config, run=run)
seed_all(0)
task = build_task(config, data=Path(sys.argv[1]), init=None)
fit(task, config, recipe="plain", out=Path(sys.argv[2]), resume=True)
assert isinstance(task.model, FSDPModule) == (sys.argv[3] == "fsdp" and "WORLD_SIZE" in os.environ)
"""

MOMENTUM = """
import sys
from dataclasses import replace
from pathlib import Path
from torch.distributed.fsdp import FSDPModule
from engine.config import Duration
from engine.training.loop import fit
from engine.training.seeding import seed_all
from pretraining.moco_v3.task import build_task
from pretraining.moco_v3.recipes import tiny_moco_v3

config = tiny_moco_v3()
schedule = replace(config.run.schedule, warmup=Duration(1))
run = replace(config.run, length=Duration(3), batch_size=8, precision="32-true", schedule=schedule,
              save_every=Duration(2), strategy=sys.argv[3])
backbone = replace(config.backbone, depth=2)
config = replace(config, backbone=backbone, hidden=32, width=16, momentum=0.5, run=run)
seed_all(0)
task = build_task(config, data=Path(sys.argv[1]), init=None)
fit(task, config, recipe="plain", out=Path(sys.argv[2]), resume=True)
blocks = [*task.model.base.encoder.blocks, *task.model.momentum.encoder.blocks]
assert all(isinstance(block, FSDPModule) == (sys.argv[3] == "fsdp") for block in blocks)
"""


def _run(processes: int, arguments: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _close(a: Any, b: Any) -> None:
    """Adam divides by the root of the second moment, which amplifies the summation order of float32."""
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            _close(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            _close(one, other)


def _state(out: Path) -> dict[str, Any]:
    state = torch.load(checkpoints(out)[-1], weights_only=True)
    del state["progress"]
    return state


@pytest.mark.slow
def test_shards_step_as_wholes_do_and_resume_from_each_other(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    data = tmp_path / "data"
    shutil.copytree(few_scenes.imagenet, data)
    next((data / "val").rglob("*.*")).unlink()  # 15 images: one process evaluates a batch more than the other
    for strategy in ("ddp", "fsdp"):
        _run(2, [str(script), str(data), str(tmp_path / strategy), strategy, "32-true"])
    whole, shared = _state(tmp_path / "ddp"), _state(tmp_path / "fsdp")
    assert set(shared) == {"model", "optimizer", "average"}
    _close(whole, shared)
    exported = load_file(tmp_path / "fsdp" / "backbone.safetensors")
    for name, value in shared["average"].items():  # the exported encoder is the average
        if name.startswith("encoder."):
            assert torch.equal(exported[name.removeprefix("encoder.")], value)

    out = tmp_path / "fsdp"
    for strategy in ("fsdp", "ddp"):  # the checkpoint before the last, continued by shares and by wholes
        checkpoints(out)[-1].unlink()
        _run(2, [str(script), str(data), str(out), strategy, "32-true"])
        again = _state(out)
        _close(shared, again)
        if strategy == "fsdp":
            for name, value in shared["model"].items():
                assert torch.equal(again["model"][name], value)


@pytest.mark.sweep
@pytest.mark.slow
def test_weights_gathered_in_bfloat16_step_as_wholes_do(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    for strategy in ("ddp", "fsdp"):
        _run(2, [str(script), str(few_scenes.imagenet), str(tmp_path / strategy), strategy, "bf16-mixed"])
    whole, shared = _state(tmp_path / "ddp"), _state(tmp_path / "fsdp")
    for name, value in shared["model"].items():
        assert value.dtype == torch.float32  # what is trained and saved is not what is gathered
        # Adam's first steps are of the size of the learning rate, 1e-3 or so, whatever rounding does to a gradient
        torch.testing.assert_close(value, whole["model"][name], rtol=0, atol=5e-3)
    losses = [read_record(tmp_path / strategy).losses["loss"] for strategy in ("ddp", "fsdp")]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


STOPPED = """
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from engine.config import Duration
from engine.training import evaluation
from engine.training.loop import fit
from engine.training.seeding import seed_all
from pretraining.mae.task import build_task
from pretraining.recipes import tiny

evaluation.ASKED_EVERY = 2
config = tiny()
run = replace(config.run, length=Duration(1), batch_size=4, precision="32-true", eval_batch_size=1)
config = replace(config, run=run)
seed_all(0)
task = build_task(config, data=Path(sys.argv[1]), init=None)
predict, seen = task.predict, []

def stopping(batch):
    seen.append(len(seen))
    if os.environ["RANK"] == "1" and len(seen) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return predict(batch)

task.predict = stopping
record = fit(task, config, recipe="plain", out=Path(sys.argv[2]))
assert record.status == "interrupted" and len(seen) == 2, (record.status, len(seen))
"""


@pytest.mark.slow
def test_a_stop_of_one_process_during_an_evaluation_is_heard_by_all(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(STOPPED)
    _run(2, [str(script), str(few_scenes.imagenet), str(tmp_path / "run")])
    record = read_record(tmp_path / "run")
    assert record.status == "interrupted" and record.metrics == {} and len(checkpoints(tmp_path / "run")) == 1


@pytest.mark.sweep
@pytest.mark.slow
def test_a_momentum_encoder_follows_in_shards(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(MOMENTUM)
    for strategy in ("ddp", "fsdp"):
        _run(2, [str(script), str(few_scenes.imagenet), str(tmp_path / strategy), strategy])
    whole, shared = _state(tmp_path / "ddp")["model"], _state(tmp_path / "fsdp")["model"]
    assert whole.keys() == shared.keys()
    for name, value in whole.items():
        # halving the sum of two gradients is exact, so two processes leave no rounding between the strategies
        assert torch.equal(shared[name], value), (name, (shared[name] - value).abs().max())
    moved = (whole["momentum.head.0.weight"] - whole["base.head.0.weight"]).abs().max()
    assert moved > 0  # it has followed, and lags behind
    checkpoints(tmp_path / "fsdp")[-1].unlink()  # back to step 2
    _run(2, [str(script), str(few_scenes.imagenet), str(tmp_path / "fsdp"), "fsdp"])
    for name, value in _state(tmp_path / "fsdp")["model"].items():
        assert torch.equal(value, shared[name])


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize(("tool", "folder"), [("train_det", "coco"), ("train_seg", "ade20k")])
def test_dense_tasks_train_in_shards(tool: str, folder: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    arguments = ["tiny", "--data", str(few_scenes.root / folder), "--out", str(tmp_path / "run"), "--steps", "2"]
    _run(2, [f"tools/{tool}.py", *arguments, "--batch-size", "4", "--strategy", "fsdp", "--activation-checkpointing"])
    record = read_record(tmp_path / "run")
    assert record.status == "completed" and record.world_size == 2
    assert len(read_results(tmp_path / "run" / "results.jsonl")) == record.val_images == 6
    assert evaluate.main([str(tmp_path / "run")]) == 0  # one process, from the checkpoint
