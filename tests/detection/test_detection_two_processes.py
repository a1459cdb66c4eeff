"""Detection on two gloo processes (DDP) against one process with the same images.

Every anchor and proposal is taken, so that no draw, whose seed is the process's, decides what the losses are of.

detectron2 divides the losses of boxes and masks by what the process has of them: the mean over processes, which DDP
trains on, is the loss of the whole batch for the proposal losses alone, whose divisor is a number of images. The whole
batch's losses of boxes and masks are the mean weighted by the processes' numbers of boxes and masks.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.config import DetectionConfig, HeadsConfig
from engine.config import as_json
from engine.training.resume import checkpoints
from scenes.layouts import ScenesIndex

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = """
import json
import os
import sys
from pathlib import Path

from detection.config import DetectionConfig
from detection.task import build_task
from files.typed import from_json
from engine.training.loop import fit
from engine.training.seeding import seed_all

config_file, data, out = map(Path, sys.argv[1:])
config = from_json(DetectionConfig, json.loads(config_file.read_text()))
seed_all(0)
task = build_task(config, data=data, init=None)
passes, counts = [], {}


def count(name):
    return lambda _, inputs: counts.update({name: len(inputs[0])})


def keep(module, _, losses):
    if module.training:
        passes.append({**{name: float(value) for name, value in losses.items()}, **counts})


task.model.roi_heads.box_head.register_forward_pre_hook(count("boxes"))
task.model.roi_heads.mask_head.register_forward_pre_hook(count("masks"))
task.model.register_forward_hook(keep)
fit(task, config, recipe="small", out=out)
(out / f"passes-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(passes))
"""
PER_IMAGE = ("loss_rpn_cls", "loss_rpn_loc")
PER_BOX = ("loss_cls", "loss_box_reg")
STEPS, BATCH = 4, 4


def without_draws(config: DetectionConfig, **heads: Any) -> DetectionConfig:
    """The run with all anchors and proposals in its losses, and without stochastic depth."""
    everything: HeadsConfig = replace(config.heads, rpn_samples=20_000, roi_samples=400, **heads)
    return replace(config, heads=everything, drop_path=0.0)


def run(config: DetectionConfig, data: Path, folder: Path, *, processes: int) -> list[list[dict[str, float]]]:
    """Train in `folder`; return losses and counts of every forward pass in training, by process."""
    folder.mkdir()
    script, values = folder / "train.py", folder / "given.json"
    script.write_text(SCRIPT)
    values.write_text(json.dumps(as_json(config)))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    out = folder / "run"
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), str(values), str(data), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads((out / f"passes-{rank}.json").read_text()) for rank in range(processes)]


def whole_batch(parts: list[dict[str, float]]) -> dict[str, float]:
    """The losses of all images from those of the processes' shares of them."""

    def mean(name: str, weights: list[float]) -> float:
        return sum(part[name] * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)

    losses = {name: mean(name, [1.0] * len(parts)) for name in PER_IMAGE}
    losses |= {name: mean(name, [part["boxes"] for part in parts]) for name in PER_BOX}
    return {**losses, "loss_mask": mean("loss_mask", [part["masks"] for part in parts])}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoints(folder / "run")[-1], weights_only=True)["model"]
    return state


@pytest.mark.slow
@pytest.mark.sweep
def test_two_processes_train_as_one(small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """Each process's losses and the steps are those of one process that takes the two shares one after the other."""
    config = without_draws(small_config)
    two = run(config, few_scenes.coco, tmp_path / "two", processes=2)
    in_parts = replace(config, run=replace(config.run, accumulate=2))
    (parts,) = run(in_parts, few_scenes.coco, tmp_path / "parts", processes=1)
    assert [len(passes) for passes in two] == [STEPS, STEPS] and len(parts) == 2 * STEPS
    for step in range(STEPS):
        for rank in range(2):
            # float32: the draws shuffle what is summed, and after a step the weights differ by that
            assert two[rank][step] == pytest.approx(parts[2 * step + rank], rel=1e-4), (step, rank)
    expected = weights(tmp_path / "parts")
    for name, value in weights(tmp_path / "two").items():
        # Adam divides by the root of the second moment, which amplifies the summation order of float32
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)

    (whole,) = run(config, few_scenes.coco, tmp_path / "whole", processes=1)
    first = [passes[0] for passes in two]
    # before the first step all have the same weights; float32 sums over other batches
    assert {name: whole[0][name] for name in whole_batch(first)} == pytest.approx(whole_batch(first), rel=1e-4)
    assert len({part["boxes"] for part in first}) == 2, "equal shares would not tell the two kinds of mean apart"
    assert whole[0]["boxes"] == sum(part["boxes"] for part in first)


@pytest.mark.sweep
@pytest.mark.slow
def test_batch_norm_has_the_statistics_of_all_processes(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    """The detector on an FPN with batch norm (Li et al. 2021) has losses and means of the whole batch."""
    config = without_draws(replace(small_config, pyramid="fpn"), norm="batch")
    config = replace(config, backbone=replace(config.backbone, depth=4))
    config = replace(config, run=replace(config.run, length=replace(config.run.length, value=1)))
    two = run(config, few_scenes.coco, tmp_path / "two", processes=2)
    (whole,) = run(config, few_scenes.coco, tmp_path / "whole", processes=1)
    parts = whole_batch([passes[0] for passes in two])
    # float32: a few times 1e-7, and statistics of a half alone would be further off than this
    assert {name: whole[0][name] for name in parts} == pytest.approx(parts, rel=1e-5)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "two")
    means = [name for name in expected if name.endswith("running_mean")]
    assert any("fpn_output" in name for name in means) and any("mask_fcn" in name for name in means)
    for name in means:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)

    halves = replace(config, run=replace(config.run, accumulate=2))
    (apart,) = run(halves, few_scenes.coco, tmp_path / "halves", processes=1)
    for name in ("loss_rpn_loc", "loss_cls"):
        assert whole_batch(apart)[name] != pytest.approx(whole[0][name], rel=1e-5)
