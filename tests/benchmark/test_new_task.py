"""A task that nobody knew before: one folder (tests/toy_depth) and one line in the table are all that it takes.

Its metric is an error in metres, lower is better, which search, verdict, tables, exports and pictures must follow.
"""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.report.html import to_html
from benchmark.report.verdict import verdicts
from benchmark.study.search import Search, choose
from engine.launch import train
from engine.records.record import RunRecord, read_record, write_record
from engine.spec import TaskTable
from mae_transfer.tasks import TASKS
from tests.toy_depth.spec import DEPTH, RMSE, resampler
from tools import evaluate, export_tables, plan_run, predict, run_benchmark

ROOT = Path(__file__).resolve().parents[2]
WITH_DEPTH: TaskTable = {**TASKS, DEPTH.name: DEPTH}  # the one line


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of tasks with the toy in it."""
    for tool in (evaluate, export_tables, plan_run, predict, run_benchmark):
        monkeypatch.setattr(tool, "TASKS", WITH_DEPTH)
    monkeypatch.setattr(run_benchmark, "TOOLS", run_benchmark.tools_for(WITH_DEPTH))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder, rng, depths = tmp_path / "depths", np.random.default_rng(0), {}
    for number in range(16):
        path = folder / ("train" if number < 8 else "val") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
        depths[path.name] = float(number)
    (folder / "depth.json").write_text(json.dumps(depths))
    return folder


@pytest.mark.usefixtures("known")
def test_it_trains_evaluates_predicts_and_is_planned(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(["tiny", "--data", str(data), "--out", str(run), "--loss-scale", "0.5"], [DEPTH], doc="") == 0
    record = read_record(run)
    assert record.primary_metric == "rmse" and record.metrics["rmse"] > 0 and record.config["loss_scale"] == 0.5
    assert "loss_scale: 1.0 -> 0.5" in record.departures
    assert evaluate.main([str(run)]) == 0
    assert f"rmse {record.metrics['rmse']:.4f}" in capsys.readouterr().out
    assert predict.main([str(run), str(data / "val"), "--out", str(tmp_path / "said")]) == 0
    assert len(json.loads((tmp_path / "said" / "predictions.json").read_text())) == 8
    assert plan_run.main(["train_depth", "tiny", "--gpus", "1", "--gpu-memory", "4"]) == 0
    assert capsys.readouterr().out.count("train_depth tiny") == 1


STUDY = """
name: depths
seeds: [0, 1]
arms:
  random: random
  mae: {init: w.safetensors}
tasks:
  rooms:
    {tool: train_depth, recipe: tiny, data: depths, loss_scale: 0.5, search: {base_lrs: [1e-5, 1e-1], data: others}}
compare: {against: random}
"""


# a process of its own: a study forks its runs, which no process may do that has used torch's threads
STUDY_WITH_DEPTH = """
import sys
from mae_transfer.tasks import TASKS
from tests.toy_depth.spec import DEPTH
from tools import run_benchmark

run_benchmark.TASKS = {**TASKS, DEPTH.name: DEPTH}
run_benchmark.TOOLS = run_benchmark.tools_for(run_benchmark.TASKS)
raise SystemExit(run_benchmark.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_it_is_an_arm_of_a_study(data: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.safetensors", ViT(FAMILY["vit_demo_tiny_patch8"]), source="mae")
    (tmp_path / "depths.yaml").write_text(STUDY)
    shutil.copytree(data, tmp_path / "others")  # a rate is not chosen on the images that results are from
    out = tmp_path / "out"
    arguments = [str(tmp_path / "depths.yaml"), "--data", str(tmp_path), "--out", str(out)]
    command = [sys.executable, "-W", "ignore", "-c", STUDY_WITH_DEPTH, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "| rooms  | rmse (m, lower is better) |" in done.stdout
    for arm in ("random", "mae"):
        tried = json.loads((out / "search" / f"rooms-{arm}" / "choice.json").read_text())
        values = {item["base_lr"]: item["value"] for item in tried["tried"]}
        assert tried["metric"] == "rmse" and values[tried["base_lr"]] == min(values.values())
        assert read_record(out / f"rooms-{arm}-seed0").config["run"]["optim"]["base_lr"] == tried["base_lr"]


def test_search_takes_the_lowest_error(record: Callable[..., RunRecord], tmp_path: Path) -> None:
    for rate, value in ((1e-4, 3.0), (1e-3, 0.5), (1e-2, 2.0)):
        run = record("depth", "mae", 100, {"rmse": value}, primary_metric="rmse")
        write_record(tmp_path / f"{rate}", run)
    grid = tuple((rate, tmp_path / f"{rate}") for rate in (1e-4, 1e-3, 1e-2))
    search = Search(task="depth", arm="mae", seed=100, grid=grid, runs=("a", "b", "c"), out=tmp_path)
    assert choose(search, RMSE).base_lr == 1e-3


@pytest.fixture
def comparison(study: Any, record: Callable[..., RunRecord]) -> Comparison:
    """MAE half a metre better than labels, with a per-image results file each."""
    for arm, rmse in (("mae", 1.0), ("supervised", 1.5)):
        for seed in range(4):
            value = rmse + 0.01 * seed + (0.003 if arm == "mae" and seed % 2 else 0.0)
            study.add(f"{arm}-{seed}", record("depth", arm, seed, {"rmse": value}, primary_metric="rmse"))
    return compare(open_store(study.root, {DEPTH.name: DEPTH}))


def test_every_export_gives_the_right_verdict(comparison: Comparison) -> None:
    (row,) = comparison.rows
    headline = row.headline
    assert headline is not None and headline.mean == pytest.approx(-0.4985) and headline.verdict == "supported"
    said = "MAE transfers better than supervised: supported"
    assert any(said in line for line in verdicts(comparison))
    assert "Overall: MAE transfers better than supervised: supported on depth" in verdicts(comparison)[-1]
    markdown = EXPORTS["md"](comparison)
    assert "rmse (m, lower is better)" in markdown and said in markdown and "in percent where" in markdown
    assert "1.0165" in markdown and "supported" in markdown
    values = json.loads(EXPORTS["json"](comparison))
    assert (values["rows"][0]["unit"], values["rows"][0]["higher_is_better"]) == ("m", False)
    assert values["rows"][0]["contrasts"][0]["verdict"] == "supported"
    rows = [line for line in csv.DictReader(EXPORTS["csv"](comparison).splitlines()) if line["arm"] == "mae-supervised"]
    assert {line["note"] for line in rows if line["statistic"] == "mean"} == {said}
    assert "supported" in EXPORTS["latex"](comparison) and r"rmse (m, lower is better)" in EXPORTS["latex"](comparison)
    page = to_html(comparison)
    assert said in page and "rmse (m, lower is better)" in page


def test_the_error_is_resampled_by_hand() -> None:
    """Squared errors 1 and 9: both times the first gives 1 m, both times the second 3 m, one of each the root of 5."""
    found = resampler([{"squared_error": 1.0}, {"squared_error": 9.0}])(np.array([[2, 0], [0, 2], [1, 1]]))
    assert found["rmse"] == pytest.approx([1.0, 3.0, 5**0.5])


def test_a_negative_error_is_no_record(study: Any, record: Callable[..., RunRecord]) -> None:
    study.add("run", record("depth", "mae", 0, {"rmse": -0.5}, primary_metric="rmse"))
    (text,) = open_store(study.root, {DEPTH.name: DEPTH}).unreadable
    assert "metrics.rmse: -0.5 is outside 0 to inf" in text
