"""The search of pre-training rates: short pre-trainings of every arm, each judged by a probe of held-out images."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.report.tuning import tuning_grid
from benchmark.runner.scheduler import Suite
from benchmark.runner.status import status_text
from benchmark.study.file import parse_study, study_text
from benchmark.study.plan import read_plans
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.search import read_choice
from benchmark.study.tool import Tool
from engine.config import Duration
from engine.records.record import RunRecord, read_record, write_record
from files.digest import file_sha256
from mae_transfer.tasks import TASKS
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]
SEARCH = "pretrain_search: {hold_out: 0.2, steps: 5, warmup: 2, probe: {recipe: vit_demo_patch8, pooling: mean}}"
SEARCHED = f"""
name: mine
seeds: [0, 1]
pretrain_seeds: tied
{SEARCH}
arms:
  random: random
  labels: {{pretrain: {{recipe: tiny_supervised, data: photos, steps: 40, base_lrs: [1e-3, 2e-3]}}}}
  mae: {{pretrain: {{recipe: tiny, data: photos, steps: 40, base_lrs: [1e-3, 3e-3]}}}}
tasks:
  birds: {{tool: train_cls, recipe: tiny, data: birds}}
compare: {{against: labels}}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Prepared]:
    for name in ("photos", "birds"):
        (tmp_path / name).mkdir()

    def make(tools: dict[str, Tool] = TOOLS, text: str = SEARCHED) -> Prepared:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return prepare(str(file), tools, studies=tmp_path, out=tmp_path / "out", root=tmp_path)

    return make


def test_short_pretrainings_and_their_probes_come_first(made: Callable[..., Prepared], tmp_path: Path) -> None:
    study = made()
    study.refuse()
    phases = [run.phase for run in study.runs]
    first = ["data"] * 2 + ["pretrain-search"] * 4 + ["pretrain-probe"] * 4
    assert phases == first + 2 * (["pretrain"] * 2 + ["transfer"] * 3)  # seed by seed, since they are tied
    runs = {run.name: run for run in study.runs}
    short = runs["search-pretrain-mae-lr0.003"]
    assert short.job is not None
    config = short.job.config.run
    assert (config.optim.base_lr, config.seed, config.schedule.warmup) == (0.003, 100, Duration(2))
    assert short.settings is not None and short.settings["run"]["length"] == {"value": 5, "unit": "steps"}
    assert short.data == tmp_path / "out/held-out/pretrain-mae" and short.needs == ("hold-out-pretrain-mae",)
    probe = runs["probe-search-pretrain-mae-lr0.003"]
    assert probe.job is not None and probe.job.config.pooling == "mean"
    assert probe.job.args.init == short.out / "backbone.safetensors" and probe.data == short.data
    assert probe.needs == ("hold-out-pretrain-mae", short.name)
    for seed in (0, 1):  # every seed has the rate that one search chose
        search = runs[f"pretrain-mae-seed{seed}"].search
        assert search is not None and search.runs == tuple(f"probe-search-pretrain-mae-lr{lr}" for lr in (0.001, 0.003))
    study.write_plan()
    (plan,) = read_plans(tmp_path / "out").values()
    assert {run.choice for run in plan.runs if run.phase == "pretrain" and run.arm == "mae"} == {"search/pretrain-mae"}


def test_arms_that_differ_in_length_alone_share_a_search(made: Callable[..., Prepared], tmp_path: Path) -> None:
    mae = next(line for line in SEARCHED.splitlines() if line.startswith("  mae:"))
    more = mae.replace("mae:", "longer:").replace("steps: 40", "steps: 80")
    study = made(
        text=SEARCHED.replace(mae, f"{mae}\n{more}").replace("seeds: [0, 1]", "budget: {match: none}\nseeds: [0, 1]")
    )
    study.refuse()
    runs = {run.name: run for run in study.runs}
    assert sum(run.phase == "pretrain-search" for run in study.runs) == 4
    assert runs["pretrain-longer-seed0"].search == runs["pretrain-mae-seed1"].search


def fake_tools(record: Record, top1: dict[tuple[str, float], float]) -> dict[str, Tool]:
    """Tools whose probes find the top1 of arm and learning rate; a pre-training without one diverges."""

    def pretrain(args: Any, config: Any) -> int:
        args.out.mkdir(parents=True, exist_ok=True)
        rate = config.run.optim.base_lr
        task = "mae" if args.arm == "mae" else "supervised"
        found = record(task, "random", config.run.seed, {}, config=_run(rate), data=str(args.data))
        found = replace(found, arm=args.arm)
        if (args.arm, rate) not in top1:
            write_record(args.out, replace(found, status="failed", error="NonFiniteError: the loss is not finite"))
            return 1
        name = "backbone.safetensors"
        write_checkpoint(args.out / name, ViT(FAMILY["vit_demo_patch8"]), source=task)
        files = {name: file_sha256(args.out / name)}
        write_record(args.out, replace(found, outputs=(name,), files_sha256=files))
        return 0

    def probe(args: Any, _: Any) -> int:
        short = read_record(args.init.parent)
        value = top1[short.arm or "", short.config["run"]["optim"]["base_lr"]]
        for name in ("knn", "linear_features"):
            (args.out / name).mkdir(parents=True)
            write_record(args.out / name, record(name, "own", 100, {"top1": value}, data=str(args.data)))
        return 0

    def transfer(args: Any, config: Any) -> int:
        args.out.mkdir(parents=True)
        found = record("classification", args.arm, config.run.seed, {"top1": 50.0}, data=str(args.data))
        write_record(args.out, replace(found, arm=args.arm))
        return 0

    def make(args: Any, _: Any) -> int:
        args.out.mkdir(parents=True, exist_ok=True)
        return 0

    runs = {"pretrain": pretrain, "probe": probe, "hold_out": make, "train_cls": transfer}
    return {name: replace(tool, run=runs.get(name, tool.run), preload=lambda: None) for name, tool in TOOLS.items()}


def _run(rate: float) -> dict[str, Any]:
    return {"run": {"optim": {"base_lr": rate}}}


def test_the_probe_chooses_the_rate_of_every_seed(
    made: Callable[..., Prepared], record: Record, tmp_path: Path
) -> None:
    study, screen = (
        made(fake_tools(record, {("labels", 1e-3): 30.0, ("labels", 2e-3): 20.0, ("mae", 1e-3): 5.0})),
        io.StringIO(),
    )
    study.write_plan()
    outcomes = Suite(study.tools, Console(file=screen, width=250)).carry_out(study.runs)
    assert all(outcome.good for outcome in outcomes), [o.error for o in outcomes if not o.good]
    out = tmp_path / "out"
    for arm, seed in (("labels", 0), ("labels", 1), ("mae", 0), ("mae", 1)):
        assert read_record(out / f"pretrain-{arm}-seed{seed}").config == _run(1e-3)
    choice = read_choice(out / "search/pretrain-mae")
    assert choice is not None and [item.value for item in choice.tried] == [5.0, None]
    said = screen.getvalue()
    assert "Learning rate of labels in pre-training: 0.001, by top1 on 50 images (val) with seed 100" in said
    assert "Learning rate of mae in pre-training: 0.001, by top1" in said and "0.003: diverged" in said
    assert "nothing to probe" in status_text("mine", study.runs)
    comparison = compare(open_store(out, TASKS))
    # the short pre-trainings of the search are of other images and length, and no part of the comparison
    assert {cost.arm: cost.pretrainings for cost in comparison.costs} == {"random": 0, "labels": 2, "mae": 2}
    assert comparison.rows and not [line for row in comparison.rows for line in row.refused if "lr0." in line]
    grid = tuning_grid(comparison)
    assert grid is not None
    assert [row[:2] for row in grid.rows] == [("pre-training", rate) for rate in ("0.001", "0.002", "0.003")]


def test_it_is_read_and_written() -> None:
    study = parse_study(SEARCHED, "mine.yaml", TOOLS)
    assert study.pretrain_search is not None and study.pretrain_search.options == {"steps": 5, "warmup": Duration(2)}
    assert parse_study(study_text(study), "mine.yaml", TOOLS) == study


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base_lrs: [1e-3, 3e-3]", "base_lrs: [1e-3]", r"mae\.pretrain\.base_lrs: 1 learning rates, 2 in labels"),
        (", base_lrs: [1e-3, 3e-3]", "", r"arms\.mae\.pretrain\.base_lrs: 0 learning rates, 2 in labels"),
        ("[1e-3, 3e-3]", "[1e-3, 3e-3], base_lr: 1e-3", r"mae\.pretrain\.base_lr: pretrain has no such flag"),
        (SEARCH, "", r"base_lrs: goes with `pretrain_search: "),
        ("seeds: [0, 1]", "seeds: [0, 100]", r"pretrain_search\.seed: 100 is a seed of the pre-trainings"),
        ("steps: 5, ", "stepz: 5, ", r"pretrain_search\.stepz: .*Did you mean steps\?"),
        ("pooling: mean", "pooling: men", r"pretrain_search\.probe\.pooling: 'men'"),
        ("vit_demo_patch8", "vit_demo", r"pretrain_search\.probe\.recipe: no recipe is called 'vit_demo'"),
    ],
)
def test_mistakes_are_said_with_their_place(old: str, new: str, message: str) -> None:
    assert SEARCHED.count(old) == 1
    with pytest.raises(ValueError, match=message):
        parse_study(SEARCHED.replace(old, new), "mine.yaml", TOOLS)
