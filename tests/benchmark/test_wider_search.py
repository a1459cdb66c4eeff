"""Learning rates beyond a grid: tried for every arm where the best of some arm is an end, and nowhere else."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.compare.records import open_store
from benchmark.runner.attempt import Outcome
from benchmark.runner.scheduler import Suite
from benchmark.runner.slurm import submit
from benchmark.runner.status import dry_run_text, status_text
from benchmark.study.file import parse_study, study_text
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.search import rates_beyond, read_choice
from benchmark.study.tool import Tool
from engine.records.record import RunRecord, read_record, write_record
from files.digest import file_sha256
from mae_transfer.tasks import TASKS
from tests.benchmark.fake_tools import trained_by
from tests.benchmark.test_slurm import Executor
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]
STUDY = """
name: mine
data: root
seeds: [0]
arms: {random: random, mae: {init: w.pth, init_source: mae}}
tasks:
  cars:
    {tool: train_seg, recipe: tiny, data: cars, steps: 20,
     search: {base_lrs: [1e-3, 2e-3, 4e-3], widen: 2, hold_out: 0.2, steps: 5}}
compare: {against: random}
"""
BEST = {"random": 2e-3, "mae": 8e-3}


def peaked(record: Record, best: dict[str, float]) -> dict[str, Tool]:
    """Tools whose mIoU is 50 at the best rate of the arm, and half of that at twice or half of the rate."""

    def train(args: Any, config: Any, settings: dict[str, Any]) -> int:
        args.out.mkdir(parents=True, exist_ok=True)
        ratio = max(config.run.optim.base_lr / best[args.arm], best[args.arm] / config.run.optim.base_lr)
        own = {"config": settings, "data": str(args.data), "weights_sha256": args.init and file_sha256(args.init)}
        write_record(args.out, record("segmentation", args.arm, 0, {"miou": 50.0 / ratio}, **own))
        return 0

    def make(args: Any, _: Any) -> int:
        args.out.mkdir(parents=True)
        return 0

    return trained_by(train, make)


@pytest.fixture
def made(tmp_path: Path, record: Record) -> Callable[..., Prepared]:
    (tmp_path / "root" / "cars").mkdir(parents=True)
    (tmp_path / "root" / "w.pth").write_text("weights")

    def make(best: dict[str, float] = BEST, text: str = STUDY) -> Prepared:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        tools = peaked(record, best)
        return prepare(str(file), tools, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")

    return make


def carried(study: Prepared) -> tuple[dict[str, Outcome], str]:
    screen = io.StringIO()
    study.write_plan()
    outcomes = Suite(study.tools, Console(file=screen, width=200), at_once=2).carry_out(study.runs)
    return {outcome.run.name: outcome for outcome in outcomes}, screen.getvalue()


def tried(folder: Path) -> list[float]:
    return sorted(float(path.name.removeprefix("lr")) for path in folder.glob("lr*"))


@pytest.mark.parametrize(
    ("grid", "lowest", "highest"),
    [
        ([1e-3, 4e-3, 2e-3], (5e-4, 2.5e-4), (8e-3, 1.6e-2)),
        ([1e-3, 3e-3, 1.2e-2], (1e-3 / 3, 1e-3 / 9), (4.8e-2, 0.192)),  # each end by its own two
    ],
)
def test_rates_beyond(grid: list[float], lowest: tuple[float, ...], highest: tuple[float, ...]) -> None:
    assert rates_beyond(grid, "lowest", 2) == pytest.approx(lowest, rel=1e-5)  # six digits are kept
    assert rates_beyond(grid, "highest", 2) == pytest.approx(highest, rel=1e-5)
    assert rates_beyond(grid, "highest", 0) == ()


def test_all_arms_try_what_one_arm_asks_for(made: Callable[..., Prepared], tmp_path: Path) -> None:
    """mae's best of the grid is 0.004; then 0.008, which 0.016 confirms. No arm's best is the lowest."""
    outcomes, screen = carried(made())
    assert {outcome.status for outcome in outcomes.values()} == {"completed", "recorded"}
    for arm, best in BEST.items():
        assert tried(tmp_path / f"out/search/cars-{arm}") == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
        choice = read_choice(tmp_path / f"out/search/cars-{arm}")
        assert choice is not None and (choice.base_lr, choice.edge, len(choice.tried)) == (best, None, 5)
        assert read_record(tmp_path / f"out/cars-{arm}-seed0").config["run"]["optim"]["base_lr"] == best
    assert outcomes["search-cars-mae-lr0.0005"].error == (
        "not needed, no arm's best learning rate is the lowest of its grid"
    )
    assert "search-cars-mae-lr0.0005: not needed, no arm's best" in screen and "WARNING" not in screen
    assert screen.index("search-cars-random-lr0.016: completed") < screen.index("Learning rate of random in cars")
    store = open_store(tmp_path / "out", TASKS)
    assert not store.absent and not store.unplanned and len(store.stored) == 12
    assert "Study mine: 13 runs: 13 completed" in status_text("mine", made().runs)


def test_a_grid_is_widened_no_further_than_said(made: Callable[..., Prepared], tmp_path: Path) -> None:
    _, screen = carried(made({"random": 2e-3, "mae": 1.0}))
    assert tried(tmp_path / "out/search/cars-mae") == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
    assert "WARNING: 0.016 is the highest of the grid" in screen


def test_nothing_is_tried_where_no_best_is_an_end(made: Callable[..., Prepared], tmp_path: Path) -> None:
    study = made({"random": 2e-3, "mae": 2e-3})
    carried(study)
    assert tried(tmp_path / "out/search/cars-mae") == [1e-3, 2e-3, 4e-3]
    text = status_text("mine", made().runs)
    assert "Study mine: 9 runs: 9 completed" in text and "more at wider grids" not in text


def test_what_may_be_asked_for_is_said_and_not_counted(made: Callable[..., Prepared], tmp_path: Path) -> None:
    said = "Up to 8 runs more at wider grids, where the best learning rate of an arm is an end of its grid."
    study = made()
    text = dry_run_text("mine", study.runs, tmp_path / "out")
    assert "Study mine: 9 runs, 0 of them done" in text and said in text
    assert "searched for every arm alike with seed 100: 0.001, 0.002, 0.004." in text
    assert said in status_text("mine", study.runs)
    carried(study)
    text = dry_run_text("mine", made().runs, tmp_path / "out")
    assert "Study mine: 13 runs, 13 of them done" in text and "more at wider grids" not in text
    assert "searched for every arm alike with seed 100: 0.001, 0.002, 0.004, 0.008, 0.016." in text


def test_a_failed_run_of_the_grid_holds_back_what_is_beyond(made: Callable[..., Prepared], tmp_path: Path) -> None:
    outcomes, _ = carried(made({"random": 2e-3}))  # of mae every run fails
    assert outcomes["search-cars-mae-lr0.001"].status == "failed"
    held = outcomes["search-cars-random-lr0.008"]
    assert (held.status, held.error) == ("not run", "needs the search at the learning rates nearer to the grid")
    for arm in BEST:
        assert outcomes[f"cars-{arm}-seed0"].status == "not run"
    assert outcomes["cars-random-seed0"].error == (
        "needs the search runs of all arms, which say whether the grid is to be wider"
    )


def test_jobs_of_a_cluster_are_handed_in_as_they_become_known(made: Callable[..., Prepared], tmp_path: Path) -> None:
    """Each round of jobs is what the same command hands in, until every run has its result."""
    arrays = []
    for _ in range(4):
        study, executor = made(), Executor()
        suite = Suite(study.tools, Console(file=io.StringIO()))
        submit(study, suite, None, executor=lambda _, mine=executor: mine)
        arrays.append([len(names) for _, names in executor.arrays])
        for name in (name for _, names in executor.arrays for name in names):
            suite.carry_one(name, study.runs, study.out)
    assert arrays == [[1, 6, 2], [2, 2], [2, 2], []]  # held-out images, rates, transfers; 0.008 with them; 0.016
    assert tried(tmp_path / "out/search/cars-random") == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
    assert read_record(tmp_path / "out/cars-mae-seed0").config["run"]["optim"]["base_lr"] == 8e-3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("widen: 2", "widen: 5", r"tasks\.cars\.search\.widen: .*4"),
        ("widen: 2", "widen: -1", r"tasks\.cars\.search\.widen: .*-1"),
        ("[1e-3, 2e-3, 4e-3]", "[1e-3]", r"tasks\.cars\.search: widen: 2, and base_lrs has 1 rate; two say how far"),
    ],
)
def test_what_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_study(STUDY.replace(old, new), "mine.yaml", TOOLS)


def test_the_study_is_written_as_it_is_read() -> None:
    study = parse_study(STUDY, "mine.yaml", TOOLS)
    assert parse_study(study_text(study), "mine.yaml", TOOLS) == study
