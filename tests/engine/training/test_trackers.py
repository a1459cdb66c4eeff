"""Trackers: every number once, whatever is interrupted; what is not there is refused, what fails costs only itself."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engine.training.loop
from engine.config import Duration
from engine.records.metrics_file import CSV_NAME, parse_rows
from engine.records.record import read_record
from engine.training.loop import fit
from engine.training.trackers import check_tracker, open_tracker

CONFIG = Duration(3)
CALLS: list[tuple[Any, ...]] = []


class Remembering:
    """A logger with Lightning's interface."""

    def __init__(self, save_dir: str) -> None:
        CALLS.append(("folder", save_dir))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        CALLS.append(("config", params.get("run", {}).get("seed")))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        CALLS.extend(("metric", step, name, value) for name, value in metrics.items())

    def finalize(self, status: str) -> None:
        CALLS.append(("end", status))


class Failing(Remembering):
    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        raise ConnectionError("no route")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setitem(sys.modules, "loggers", SimpleNamespace(Remembering=Remembering, Failing=Failing))


def with_tracker(config: Any, kind: str, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(config, run=replace(config.run, tracker=kind, log_every=1, **changes))


def sent() -> list[tuple[Any, ...]]:
    return [call[1:] for call in CALLS if call[0] == "metric"]


def test_an_interrupted_run_sends_every_number_once(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_tracker(toy_config, "loggers:Remembering", save_every=Duration(1))
    original = engine.training.loop.train_batches

    def stopping(*args: Any, **kwargs: Any) -> Any:
        for number, batch in enumerate(original(*args, **kwargs), start=1):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(engine.training.loop, "train_batches", stopping)
        assert fit(toy_task(), config, recipe="toy", out=tmp_path / "run").status == "interrupted"
    # as after a crash: the last checkpoint is gone, so that its step comes again
    sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))[-1].unlink()
    assert fit(toy_task(), config, recipe="toy", out=tmp_path / "run", resume=True).status == "completed"
    assert CALLS[0] == ("folder", str(tmp_path / "run" / "tracker"))
    assert [call for call in CALLS if call[0] == "config"] == [("config", config.run.seed)]
    assert [call for call in CALLS if call[0] == "end"] == [("end", "failed"), ("end", "success")]
    names = [(step, name) for step, name, _ in sent()]
    assert len(names) == len({*names})
    rows, bad = parse_rows((tmp_path / "run" / CSV_NAME).read_bytes())
    clock = ("images_per_second", "data_wait")
    kept = {(row.step, row.name): row.value for row in rows if row.name not in clock}
    assert not bad and {(s, n): v for s, n, v in sent() if n not in clock} == pytest.approx(kept)


def test_a_tracker_that_fails_costs_only_itself(
    toy_task: Any, toy_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "plain")
    record = fit(toy_task(), with_tracker(toy_config, "loggers:Failing"), recipe="toy", out=tmp_path / "run")
    assert record.status == "completed" and record.metrics == plain.metrics and record.run_id == plain.run_id
    assert capsys.readouterr().out.count("warning: the tracker gets no more: ConnectionError: no route") == 1
    assert read_record(tmp_path / "run").departures == ()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("wandbee", "--tracker wandbee: give none, wandb, mlflow, or module:Class of a logger."),
        ("loggers:Missing", "--tracker loggers:Missing: loggers has no Missing."),
        ("no_such_package:Logger", "No module named 'no_such_package'; install it .pip install no_such_package."),
    ],
)
def test_what_is_not_there_is_refused_before_the_first_step(
    toy_task: Any, toy_config: Any, tmp_path: Path, kind: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        fit(toy_task(), with_tracker(toy_config, kind), recipe="toy", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wandb_and_mlflow_are_called_as_they_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against stand-ins of their interfaces: neither package is part of the environment."""
    begun: list[Any] = []
    run = SimpleNamespace(
        config=SimpleNamespace(update=lambda params, **_: begun.append(("config", params))),
        log=lambda metrics, step: begun.append((step, metrics)),
        finish=lambda exit_code: begun.append(("exit", exit_code)),
    )
    wandb = SimpleNamespace(init=lambda **given: begun.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for _ in range(2):  # the same run is continued
        tracker = open_tracker("wandb", tmp_path, "abc", CONFIG)
        assert tracker is not None
        tracker.log(3, {"loss": 0.5})
        tracker.close("completed")
    given = {"id": f"abc-{tmp_path.name}", "name": tmp_path.name, "dir": str(tmp_path), "resume": "allow"}
    assert begun[0] == begun[4] == {**given, "project": "mae-transfer"}
    assert begun[1:4] == [("config", {"value": 3, "unit": "steps"}), (3, {"loss": 0.5}), ("exit", 0)] and begun[5:] == [
        ("exit", 0)
    ]

    said: list[Any] = []
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name: said.append(name) or "7",
        create_run=lambda experiment, run_name: SimpleNamespace(
            info=SimpleNamespace(run_id=f"{experiment}-{run_name}")
        ),
        log_dict=lambda *given: said.append(given),
        log_metric=lambda *given, step: said.append((*given, step)),
        set_terminated=lambda *given: said.append(given),
    )
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=lambda: client))
    tracker = open_tracker("mlflow", tmp_path / "other", "abc", CONFIG)
    assert tracker is not None
    tracker.log(3, {"loss": 0.5})
    tracker.close("interrupted")
    assert said == [
        "mae-transfer",
        ("7-other", {"value": 3, "unit": "steps"}, "config.json"),
        ("7-other", "loss", 0.5, 3),
        ("7-other", "FAILED"),
    ]


def test_fabrics_own_loggers_are_taken(tmp_path: Path) -> None:
    check_tracker("lightning_fabric.loggers:CSVLogger")
    tracker = open_tracker("lightning_fabric.loggers:CSVLogger", tmp_path, "abc", CONFIG)
    assert tracker is not None
    tracker.log(1, {"loss": 2.0})
    tracker.close("completed")
    (found,) = (tmp_path / "tracker").rglob("metrics.csv")
    assert "2.0" in found.read_text()


def test_what_was_not_sent_is_sent_by_the_resumed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step counts as sent once the logger has taken it, and tracker.json is written after that."""
    failing = open_tracker("loggers:Failing", tmp_path, "abc", CONFIG)
    assert failing is not None
    failing.log(1, {"loss": 2.0})
    working = open_tracker("loggers:Remembering", tmp_path, "abc", CONFIG)
    assert working is not None
    working.log(1, {"loss": 2.0})
    working.log(1, {"loss": 2.0, "val/top1": 50.0})
    assert sent() == [(1, "loss", 2.0), (1, "val/top1", 50.0)]
    capsys.readouterr()


@pytest.mark.parametrize("content", ["{", "[]", '{"step": "x"}', '{"step": 3, "names": 5}'])
def test_a_damaged_file_begins_the_tracker_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "tracker.json").write_text(content)
    tracker = open_tracker("loggers:Remembering", tmp_path, "abc", CONFIG)
    assert tracker is not None
    tracker.log(1, {"loss": 2.0})
    assert sent() == [(1, "loss", 2.0)]


def test_a_full_disk_ends_the_tracker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = open_tracker("loggers:Remembering", tmp_path, "abc", CONFIG)
    assert tracker is not None

    def full(_: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.training.trackers.replacing", full)
    tracker.log(1, {"loss": 2.0})
    tracker.log(2, {"loss": 1.0})
    assert "the tracker gets no more: OSError" in capsys.readouterr().out and len(sent()) == 1
