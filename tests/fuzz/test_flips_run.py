"""Flipped bits in the folder of a run: resumed, it has the same numbers or says which file is damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.records.own_files import damaged_files
from engine.records.record import read_record
from engine.records.results_file import read_results
from engine.training.loop import fit
from engine.training.resume import checkpoints
from tests.engine.conftest import ToyConfig, ToyTask


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "interrupted"])
def test_flips_of_a_run(
    stopped: bool, flips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.training.loop.draw_curves", lambda *_: [])
    run, kept = tmp_path / "run", tmp_path / "kept"
    task = ToyTask()
    if stopped:
        task.train_data.signal_at_read = 40
    fit(task, ToyConfig(), recipe="toy", out=run)
    shutil.copytree(run, kept)

    def reset() -> None:
        shutil.rmtree(run)
        shutil.copytree(kept, run)

    def resumed() -> Any:
        record = fit(ToyTask(), ToyConfig(), recipe="toy", out=run, resume=True)
        weights = torch.load(checkpoints(run)[-1], weights_only=True)["model"]
        results = [(result.image_id, result.values) for result in read_results(run / "results.jsonl")]
        return record.evaluations, {name: value.tolist() for name, value in weights.items()}, results

    files = [run / "config.json", run / "record.json", run / "metrics.csv", *checkpoints(run)]
    files += [] if stopped else [run / "results.jsonl"]
    flips.run(files, resumed, cases=20, reset=reset)
    print(capsys.readouterr().out[-200:])


def test_flips_of_what_tables_read(flips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.loop.draw_curves", lambda *_: [])
    fit(ToyTask(), ToyConfig(), recipe="toy", out=tmp_path)

    def read() -> Any:
        record = read_record(tmp_path)
        assert record.results_file is not None
        results = read_results(tmp_path / record.results_file, sha256=record.results_sha256)
        return repr(record), results

    use: Callable[[], Any] = read
    flips.run([tmp_path / "record.json", tmp_path / "results.jsonl"], use, cases=300)


def test_flips_of_tables_and_outputs(flips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.loop.draw_curves", lambda *_: [])
    task = ToyTask()

    def finish(folder: Path) -> list[Path]:
        (folder / "per_class.csv").write_text("name,iou\na,10.5\nb,20.25\n")
        (folder / "backbone.safetensors").write_bytes(bytes(range(256)))
        return [folder / "backbone.safetensors"]

    monkeypatch.setattr(task, "finish", finish)
    record = fit(task, ToyConfig(), recipe="toy", out=tmp_path)
    files = [tmp_path / name for name in ("metrics.csv", "per_class.csv", "backbone.safetensors")]

    def read() -> Any:
        if found := damaged_files(tmp_path, record):
            raise ValueError(*found.values())
        return [path.read_bytes() for path in files]

    flips.run(files, read, cases=100)
