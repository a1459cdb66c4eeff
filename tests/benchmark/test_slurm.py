"""A study's runs as SLURM jobs: arrays that wait for each other, and one run as a job."""

import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmark.runner.scheduler import Suite
from benchmark.runner.slurm import parameters, submit
from benchmark.study.prepare import Prepared
from benchmark.study.sections import Cluster
from engine.records.record import read_record
from tests.benchmark.test_studies import SMALL, Record, fake_tools, half_done, small_study
from tools import study_job


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Prepared]:
    return small_study(tmp_path)


class Executor:
    """What is handed to submitit."""

    def __init__(self) -> None:
        self.arrays: list[tuple[dict[str, Any], list[str]]] = []
        self.parameters: dict[str, Any] = {}

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def map_array(self, job: Any, names: list[str]) -> list[Any]:
        self.arrays.append((self.parameters, names))
        number = 100 + len(self.arrays)
        return [type("Job", (), {"job_id": f"{number}_{place}"}) for place in range(len(names))]


def test_arrays_of_phases_wait_for_each_other(made: Callable[..., Prepared], record: Record) -> None:
    study, executor = made(SMALL + "cluster: {gpus: 8, partition: big, hours: 1.5}\n"), Executor()
    half_done(study, record)
    text = submit(study, Suite(study.tools, Console()), None, executor=lambda folder: executor)
    (search, names), (transfer, rest) = executor.arrays  # data and pre-training are there
    assert names == [f"search-cars-{arm}-lr{rate}" for arm in ("theirs", "mae") for rate in ("0.0001", "0.0002")]
    assert len(rest) == 18 and search["slurm_dependency"] is None
    assert transfer["slurm_dependency"] == "afterany:101"
    assert (search["timeout_min"], search["gpus_per_node"], search["slurm_partition"]) == (90, 8, "big")
    assert "search: 4 runs as array 101" in text and "transfer: 18 runs as array 102" in text
    assert "gpus_per_node" not in parameters(Cluster(), "x", after=None)


def test_slurm_without_submitit_names_the_extra(made: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    study = made()
    with pytest.raises(ValueError, match=r"needs submitit, which is not installed: pip install submitit"):
        submit(study, Suite(study.tools, Console()), None)


def test_a_job_runs_one_run(made: Callable[..., Prepared], record: Record) -> None:
    tools = fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0})
    study = made(tools=tools)
    suite = Suite(tools, Console(file=io.StringIO()))

    def one(name: str) -> tuple[str, str | None]:
        outcome = suite.carry_one(name, study.runs, study.out)
        return outcome.status, outcome.error

    assert one("search-cars-mae-lr0.0001") == ("not run", "needs hold-out-cars, pretrain-mae")
    assert one("hold-out-cars") == one("pretrain-mae") == ("completed", None)
    assert one("search-cars-mae-lr0.0001")[0] == "completed"
    assert one("cars-mae-seed0") == ("not run", "needs the search run lr0.0002, which has no record")
    assert one("search-cars-mae-lr0.0002")[0] == one("birds-mae-seed1")[0] == "completed"
    assert read_record(study.out / "search/cars-mae/lr0.0002").status == "completed"


def test_a_job_reads_the_study_from_its_folder(
    made: Callable[..., Prepared], record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_job, "TOOLS", fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0}))
    made().write_plan()
    job = pickle.loads(
        pickle.dumps(study_job.StudyJob(out=tmp_path / "out", root=tmp_path / "root", cluster=Cluster()))
    )
    assert job("hold-out-cars") == "hold-out-cars: completed"
    with pytest.raises(RuntimeError, match="birds-mae-seed0: not run: needs pretrain-mae"):
        job("birds-mae-seed0")
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(helpers=SimpleNamespace(DelayedSubmission=tuple_of)))
    assert job.suite is not None
    assert job.checkpoint("cars-mae-seed0") == (replace(job, suite=None), "cars-mae-seed0")


def tuple_of(*values: Any) -> tuple[Any, ...]:
    return values
