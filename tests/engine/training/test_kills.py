"""A run that is killed at any moment and resumed has the weights, metrics and files of an uninterrupted one."""

import csv
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.records.metrics_file import MetricsFile
from engine.records.record import read_record, standing
from engine.training import loop
from engine.training.loop import fit
from engine.training.resume import checkpoints
from files.locking import LockedError, holding, locked
from tests.engine.conftest import ToyConfig, ToyTask

TIMELESS = ("images_per_second", "data_wait")


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of so small a run."""
    monkeypatch.setattr("engine.training.loop.draw_curves", lambda *_: [])


def kill_me(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_training(task: Any, _: pytest.MonkeyPatch) -> None:
    original, calls = task.model.forward, []

    def forward(batch: Any) -> Any:
        calls.append(1)
        return kill_me() if len(calls) == 3 else original(batch)  # the second step, before any checkpoint

    task.model.forward = forward


def _in_a_checkpoint(step: int) -> Callable[[Any, pytest.MonkeyPatch], None]:
    def arm(_: Any, patch: pytest.MonkeyPatch) -> None:
        real = torch.save

        def save(state: Any, path: Path) -> None:
            real(state, path)
            if state["progress"]["step"] == step:
                path.write_bytes(path.read_bytes()[:1000])
                kill_me()

        patch.setattr(torch, "save", save)

    return arm


def _in_the_last_evaluation(task: Any, _: pytest.MonkeyPatch) -> None:
    original, calls = task.predict, []

    def predict(batch: Any) -> Any:
        calls.append(1)
        return kill_me() if len(calls) == 3 else original(batch)  # of steps 3, 6 and 7

    task.predict = predict


def _in_a_row_of_metrics(_: Any, patch: pytest.MonkeyPatch) -> None:
    real = MetricsFile.add

    def add(self: MetricsFile, step: int, values: Any) -> None:
        real(self, step, values)
        if step == 5:
            with self._path.open("r+b") as file:
                file.truncate(self._size - 7)
            kill_me()

    patch.setattr(MetricsFile, "add", add)


def _before_the_results(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "write_results", kill_me)


def _in_the_pictures(task: Any, _: pytest.MonkeyPatch) -> None:
    task.draw = kill_me


def _in_the_last_files(task: Any, _: pytest.MonkeyPatch) -> None:
    task.finish = kill_me


MOMENTS: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    "training": _in_training,
    "first checkpoint": _in_a_checkpoint(2),
    "second checkpoint": _in_a_checkpoint(4),
    "row of metrics": _in_a_row_of_metrics,
    "last checkpoint": _in_a_checkpoint(7),
    "last evaluation": _in_the_last_evaluation,
    "results": _before_the_results,
    "pictures": _in_the_pictures,
    "last files": _in_the_last_files,
}


def in_child(work: Callable[[], object]) -> int:
    """Return the exit code of a forked process that does the work."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def rows(out: Path) -> list[list[str]]:
    table = list(csv.reader((out / "metrics.csv").read_text().splitlines()))
    return [row for row in table if row[1] not in TIMELESS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.draw_curves", lambda *_: [])
        fit(ToyTask(), ToyConfig(), recipe="toy", out=out)
    return out


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    moment: str, whole: Path, toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, expected = tmp_path / "parts", read_record(whole)

    def work() -> None:
        task = toy_task()
        MOMENTS[moment](task, monkeypatch)
        fit(task, toy_config, recipe="toy", out=parts)

    assert in_child(work) == -signal.SIGKILL
    assert read_record(parts).status == "running" and holding(parts) == "free"
    record = fit(toy_task(), toy_config, recipe="toy", out=parts, resume=True)
    assert record.status == "completed" and record.evaluations == expected.evaluations
    a, b = (torch.load(checkpoints(out)[-1], weights_only=True) for out in (whole, parts))
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    moments = ((s["optimizer"]["state"][n][k] for n in (0, 1, 2, 3) for k in ("exp_avg", "exp_avg_sq")) for s in (a, b))
    assert all(torch.equal(x, y) for x, y in zip(*moments, strict=True))
    assert rows(whole) == rows(parts)
    assert (whole / "results.jsonl").read_bytes() == (parts / "results.jsonl").read_bytes()
    assert not list(parts.rglob(".*.part"))


def test_a_second_process_is_refused_until_the_first_has_gone(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(LockedError, match=f"{tmp_path}: is being written to by process {os.getpid()}"),
    ):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert fit(toy_task(), toy_config, recipe="toy", out=tmp_path).status == "completed"


def test_loader_processes_of_a_killed_run_do_not_keep_its_folder(
    toy_task: Any, toy_config: Any, tmp_path: Path
) -> None:
    config = replace(toy_config, run=replace(toy_config.run, workers=1))

    def work() -> None:
        task = toy_task()
        original = task.model.forward
        task.model.forward = lambda batch: kill_me() if checkpoints(tmp_path) else original(batch)
        fit(task, config, recipe="toy", out=tmp_path)

    assert in_child(work) == -signal.SIGKILL
    assert fit(toy_task(), config, recipe="toy", out=tmp_path, resume=True).status == "completed"


def test_a_record_says_running_while_its_process_lives(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    record = replace(fit(toy_task(), toy_config, recipe="toy", out=tmp_path), status="running")
    assert standing(tmp_path, record) == "killed"
    with locked(tmp_path):
        assert standing(tmp_path, record) == "running"
    (tmp_path / ".lock").unlink()  # of a run before there were locks
    assert standing(tmp_path, record) == "killed or still running"
    assert standing(tmp_path, replace(record, status="completed")) == "completed"
