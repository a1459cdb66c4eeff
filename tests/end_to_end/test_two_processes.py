"""Two gloo processes started by torchrun take the same steps as one process with the same batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.records.record import read_record
from engine.records.results_file import read_results
from engine.training.resume import checkpoints
from scenes.layouts import ScenesIndex
from tools import evaluate

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(processes: int, arguments: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_supervised_steps_are_the_same(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """In float32 without stochastic depth the average over two processes is the loss of the whole batch."""
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from engine.training.loop import fit\n"
        "from engine.training.seeding import seed_all\n"
        "from pretraining.recipes import tiny_supervised\n"
        "from pretraining.supervised import build_task\n"
        "from engine.config import Duration\n"
        "config = tiny_supervised()\n"
        "schedule = replace(config.run.schedule, warmup=Duration(1))\n"
        "run = replace(config.run, length=Duration(4), batch_size=8, precision='32-true', schedule=schedule)\n"
        "config = replace(config, run=run, drop_path=0.0)\n"
        "seed_all(0)\n"
        "task = build_task(config, data=Path(sys.argv[1]), init=None)\n"
        "fit(task, config, recipe='plain', out=Path(sys.argv[2]))\n"
    )
    for processes in (1, 2):
        _run(processes, [str(script), str(few_scenes.imagenet), str(tmp_path / str(processes))])
    one, two = (read_record(tmp_path / name) for name in ("1", "2"))
    assert (one.world_size, two.world_size) == (1, 2)
    assert (one.steps, one.samples_seen) == (two.steps, two.samples_seen) == (4, 32)
    weights = [torch.load(checkpoints(tmp_path / n)[-1], weights_only=True)["model"] for n in ("1", "2")]
    for name, value in weights[0].items():
        # Adam divides by the root of the second moment, which amplifies the summation order of float32
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
    results = [read_results(tmp_path / n / "results.jsonl") for n in ("1", "2")]
    assert [r.image_id for r in results[0]] == [r.image_id for r in results[1]]


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize(("tool", "folder"), [("train_det", "coco"), ("train_seg", "ade20k")])
def test_dense_tasks_train_and_evaluate(tool: str, folder: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    """Every parameter gets a gradient on both processes, and the results of all images come together."""
    arguments = ["tiny", "--data", str(few_scenes.root / folder), "--out", str(tmp_path / "run")]
    _run(2, [f"tools/{tool}.py", *arguments, "--steps", "2", "--batch-size", "4"])
    record = read_record(tmp_path / "run")
    assert record.status == "completed" and record.world_size == 2
    assert len(read_results(tmp_path / "run" / "results.jsonl")) == record.val_images == 6
    assert evaluate.main([str(tmp_path / "run")]) == 0  # one process, from the checkpoint
    again = json.loads(next((tmp_path / "run" / "evaluations").glob("*/metrics.json")).read_text())
    assert again["metrics"] == pytest.approx(record.metrics, abs=0.5)  # other batches, bfloat16 near ties
