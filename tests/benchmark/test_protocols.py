"""Protocols of a task as an axis of a study: what they run, and how the verdict changes with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.report.protocols import PROTOCOLS_TITLE, protocol_grid
from benchmark.study.file import parse_study, study_text
from benchmark.study.plan import Plan, Planned, read_plans, write_plan
from benchmark.study.prepare import Prepared, prepare
from mae_transfer.tasks import TASKS
from tools.run_benchmark import TOOLS

STUDY = """
name: mine
seeds: [0, 1]
margins: {cars: 0.5}
arms: {random: random, mae: {init: w.pth, init_source: mae}}
compare: {against: random}
tasks:
  cars:
    tool: train_seg
    recipe: tiny
    data: cars
    steps: 20
    search: {base_lrs: [1e-3, 2e-3], hold_out: 0.2, steps: 5}
    protocols:
      short: {}
      long: {epochs: 4, weight_decay: 0.1}
      other: {recipe: small, freeze_backbone: true, search: {base_lrs: [4e-3], hold_out: 0.2, warmup: 3}}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], Prepared]:
    (tmp_path / "cars").mkdir()
    (tmp_path / "w.pth").write_text("weights")
    (tmp_path / "mine.yaml").write_text(STUDY)
    return lambda: prepare(str(tmp_path / "mine.yaml"), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path)


def test_each_protocol_runs_as_a_task(made: Callable[[], Prepared], tmp_path: Path) -> None:
    study = made()
    study.refuse()
    runs = {run.name: run for run in study.runs}
    length = {name: runs[f"cars-{name}-mae-seed0"].settings["run"]["length"] for name in ("short", "long")}  # type: ignore[index]
    assert length == {"short": {"value": 20, "unit": "steps"}, "long": {"value": 4, "unit": "epochs"}}
    assert runs["cars-long-mae-seed0"].settings["run"]["optim"]["weight_decay"] == 0.1  # type: ignore[index]
    other = runs["cars-other-random-seed1"]
    assert (other.recipe, other.settings["freeze_backbone"]) == ("small", True)  # type: ignore[index]
    searched = [run.name for run in study.runs if run.phase == "search" and run.arm == "mae"]
    assert searched == [
        *(f"search-cars-{name}-mae-lr{lr}" for name in ("short", "long") for lr in (0.001, 0.002)),
        "search-cars-other-mae-lr0.004",
    ]
    study.write_plan()
    (plan,) = read_plans(tmp_path / "out").values()
    assert plan.protocols == {"cars": {"short": "cars-short", "long": "cars-long", "other": "cars-other"}}
    assert plan.margins == {"cars": 0.5, "cars-short": 0.5, "cars-long": 0.5, "cars-other": 0.5}


def test_protocols_that_differ_in_length_share_the_runs_of_a_search(
    made: Callable[[], Prepared], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    text = (
        path.read_text().replace(", weight_decay: 0.1", "").replace("mae: {init", "labels: {init: w.pth}, mae: {init")
    )
    path.write_text(text.replace("hold_out: 0.2, steps: 5", "widen: 1, hold_out: 0.2, steps: 5"))
    study = made()
    study.refuse()
    runs = {run.name: run for run in study.runs}
    assert [name for name in runs if "long" in name and "seed" not in name] == []
    assert {"hold-out-cars-short", "hold-out-cars-other"} == {name for name in runs if name.startswith("hold-out")}
    short, long = (runs[f"cars-{name}-mae-seed1"].search for name in ("short", "long"))
    assert short is not None and long is not None
    assert (long.grid, long.runs, long.beyond) == (short.grid, short.runs, short.beyond) and len(long.runs) == 4
    assert {*long.runs} <= {*runs} and (short.task, long.task) == ("cars-short", "cars-long")
    assert (short.out.name, long.out.name) == ("cars-short-mae", "cars-long-mae"), "each keeps what it chose"


def test_it_is_read_and_written() -> None:
    study = parse_study(STUDY, "mine.yaml", TOOLS)
    assert parse_study(study_text(study), "mine.yaml", TOOLS) == study


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight_decay: 0.1", "weight_decai: 0.1", r"cars\.protocols\.long\.weight_decai: .*Did you mean weight_decay"),
        ("weight_decay: 0.1", "data: x", r"cars\.protocols\.long\.data: is the task's, for all its protocols alike"),
        ("weight_decay: 0.1", "base_lr: 0.1", r"cars\.protocols\.long\.base_lr: train_seg has no such flag"),
        ("short: {}", "short: 3", r"cars\.protocols\.short: 3 must be a mapping"),
        ("recipe: small", "recipe: smal", r"cars\.protocols\.other\.recipe: no recipe is called 'smal'"),
        ("warmup: 3", "warmap: 3", r"cars\.protocols\.other\.search\.warmap: .*Did you mean warmup"),
        (STUDY[STUDY.index("      long:") :], "", r"cars\.protocols: 1 protocol; give two or more"),
    ],
)
def test_mistakes_are_said_with_their_place(old: str, new: str, message: str) -> None:
    assert STUDY.count(old) == 1
    with pytest.raises(ValueError, match=message):
        parse_study(STUDY.replace(old, new), "mine.yaml", TOOLS)


def add(study: Any, record: Any, task: str, mae: list[float], labels: list[float]) -> list[Planned]:
    runs = []
    for arm, values in (("mae", mae), ("labels", labels)):
        for seed, value in enumerate(values):
            study.add(f"{task}-{arm}-seed{seed}", record("segmentation", arm, seed, {"miou": value}))
            folder = f"{task}-{arm}-seed{seed}"
            runs.append(Planned(folder=folder, phase="transfer", kind=task, task=task, arm=arm))
    return runs


def test_the_table_says_whether_protocols_agree(study: Any, record: Any) -> None:
    runs = [
        *add(study, record, "cars-short", [30.0, 31.0, 32.0], [20.0, 21.1, 22.0]),
        *add(study, record, "cars-long", [30.0, 31.0, 32.0], [40.0, 41.1, 42.0]),
    ]
    protocols = {"cars": {"short": "cars-short", "long": "cars-long", "linear": "cars-linear"}}
    plan = Plan(name="x", claim="mae", against="labels", arms=("mae", "labels"), protocols=protocols, runs=tuple(runs))
    write_plan(study.root, plan)
    comparison = compare(open_store(study.root, TASKS))
    grid = protocol_grid(comparison)
    assert grid is not None
    said = [(row[1], row[3], row[4], row[5], row[7]) for row in grid.rows]
    assert said == [
        ("short", "31.00", "21.03", "+9.97", "MAE transfers better than labels: supported"),
        ("long", "31.00", "41.03", "-10.03", "MAE transfers better than labels: contradicted"),
        ("linear", "-", "-", "-", "not run"),
        ("all", "-", "-", "-", "2 of 3 protocols have a verdict"),
    ]
    for form in ("md", "html"):
        assert "-10.03" in EXPORTS[form](comparison) and "by protocol of a task" in EXPORTS[form](comparison)  # type: ignore[index]
    assert PROTOCOLS_TITLE in EXPORTS["md"](comparison)
    write_plan(study.root, Plan(**{**vars(plan), "protocols": {"cars": {"short": "cars-short", "long": "cars-long"}}}))
    grid = protocol_grid(compare(open_store(study.root, TASKS)))
    assert grid is not None and grid.rows[-1][-1] == "another verdict by the protocol, the sign changes"
