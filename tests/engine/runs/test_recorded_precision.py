"""The precision of a run that is opened again or resumed, on devices that compute another by themselves."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import RunConfig
from engine.records.record import read_record
from engine.records.recording import last_precision
from engine.runs.recorded import Recorded
from engine.training.loop import fit


def recorded(precision: str, asked: str) -> Recorded:
    """A run of that precision in its record and its configuration."""
    record: Any = SimpleNamespace(precision=precision)
    spec: Any = None
    return Recorded(Path(), record, spec, SimpleNamespace(run=SimpleNamespace(precision=asked)), Path())


@pytest.mark.parametrize(
    ("trained", "asked", "device", "native", "found"),
    [
        ("bf16-mixed", "auto", "cuda", "bf16-mixed", "bf16-mixed"),
        ("bf16-mixed", "auto", "cpu", "32-true", "32-true"),
        ("bf16-mixed", "bf16-mixed", "cpu", "32-true", "bf16-mixed"),  # as was asked for, however slow
        ("32-true", "auto", "cuda", "bf16-mixed", "32-true"),
        ("16-mixed", "16-mixed", "cuda", "bf16-mixed", "16-mixed"),
        ("16-mixed", "16-mixed", "cpu", "bf16-mixed", "32-true"),
        ("32-true to step 8, then bf16-mixed", "auto", "cuda", "bf16-mixed", "bf16-mixed"),
    ],
)
def test_a_run_is_opened_in_the_precision_that_it_was_trained_in(
    trained: str, asked: str, device: str, native: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runs.recorded.device_named", lambda name, **_: SimpleNamespace(type=name))
    monkeypatch.setattr("engine.runs.recorded.auto_precision", lambda **_: native)
    said: list[str] = []
    assert recorded(trained, asked).precision(device, said.append) == found
    line = f"precision: 32-true; the run was trained in {trained}, which this device does not compute natively"
    assert said == ([] if last_precision(trained) == found else [line])


def test_a_run_that_is_resumed_in_another_precision_says_so(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: RunConfig = toy_config.run
    config = replace(toy_config, run=replace(run, precision="auto"))
    for native, read, resume in (("32-true", 12, False), ("bf16-mixed", 12, True), ("bf16-mixed", None, True)):
        monkeypatch.setattr("engine.device.auto_precision", lambda native=native, **_: native)
        task = toy_task()
        task.train_data.signal_at_read = read
        record = fit(task, config, recipe="toy", out=tmp_path, resume=resume)
        told = "precision bf16-mixed, which `auto` is on this device, from step 2 on; the steps before were computed"
        if (native, read) == ("bf16-mixed", 12):  # said by the session in which it changed
            assert told in capsys.readouterr().out and any(line.startswith(told) for line in record.warnings)
        else:
            assert told not in capsys.readouterr().out
    assert record.status == "completed"
    assert read_record(tmp_path).precision == "32-true to step 2, then bf16-mixed"
