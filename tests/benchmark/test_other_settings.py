"""A study whose file was changed: what has finished with other settings is neither taken nor chosen from."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.runner.scheduler import Suite
from benchmark.runner.slurm import submit
from benchmark.study.prepare import Prepared
from benchmark.study.tool import Tool
from tests.benchmark.test_slurm import Executor
from tests.benchmark.test_studies import SMALL, Record, fake_tools, small_study
from tools import run_benchmark


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Prepared]:
    return small_study(tmp_path)


def other_search(made: Callable[..., Prepared], tools: dict[str, Tool]) -> Prepared:
    """Carry the study out, then return it with longer searches and transfers."""
    assert all(outcome.good for outcome in Suite(tools, Console(file=io.StringIO())).carry_out(made(tools=tools).runs))
    return made(SMALL.replace("steps: 5}", "steps: 500}").replace("steps: 20", "steps: 2000"), tools=tools)


def test_no_transfer_has_the_rate_of_a_search_with_other_settings(
    made: Callable[..., Prepared], record: Record, tmp_path: Path
) -> None:
    tools = fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0})
    study = other_search(made, tools)
    shutil.rmtree(tmp_path / "out/cars-mae-seed0")
    outcomes = {o.run.name: o for o in Suite(tools, Console(file=io.StringIO())).carry_out(study.runs)}
    search, held = outcomes["search-cars-mae-lr0.0001"], outcomes["cars-mae-seed0"]
    assert search.status == "failed"
    assert "finished run of other settings (run.length.value: 5 -> 500)" in str(search.error)
    assert held.status == "not run" and f"{held.error}".startswith("needs the search run search-cars-mae-lr0.0001. ")
    assert not (tmp_path / "out/cars-mae-seed0").exists()
    outcome = Suite(tools, Console(file=io.StringIO())).carry_one("cars-mae-seed0", study.runs, study.out)
    assert outcome.status == "not run" and "finished run of other settings" in str(outcome.error)


def test_a_finished_run_of_other_settings_is_handed_to_nobody(made: Callable[..., Prepared], record: Record) -> None:
    tools = fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0})
    study, executor = other_search(made, tools), Executor()
    with pytest.raises(
        ValueError, match=r"other settings \(run\.length\.value: 5 -> 500\).* The same holds for 11 more runs\."
    ):
        submit(study, Suite(tools, Console()), None, executor=lambda folder: executor)
    assert executor.arrays == []


def test_a_dry_run_says_which_finished_runs_have_other_settings(
    made: Callable[..., Prepared], record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_search(made, fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0}))
    where = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "root")]
    assert run_benchmark.main([str(tmp_path / "mine.yaml"), "--dry-run", *where]) == 0
    assert re.search(r"WARNING: .*lr0\.0001: holds a finished run of other settings", capsys.readouterr().out)
