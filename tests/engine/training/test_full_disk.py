"""A disk that fills at any moment of a run: the file is named, the run says how it ended, and --resume completes it."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine import launch
from engine.launch import TrainArgs
from engine.records import record
from engine.records.metrics_file import MetricsFile
from engine.records.record import read_record, standing
from engine.training import loop
from engine.training.loop import fit
from files.writing import replacing


class Disk:
    """Below a folder nothing can be made or lengthened any more from `fill` on; what is there can be written over."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        real_os, real_io = os.open, io.open

        def check(path: Any) -> None:
            if self.full and str(path).startswith(str(root)):
                raise OSError(28, "No space left on device")

        def os_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                check(path)
            return real_os(path, flags, *rest, **more)

        def io_open(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax"):
                check(path)
            return real_io(path, mode, *rest, **more)

        patch.setattr(os, "open", os_open)
        patch.setattr(io, "open", io_open)
        patch.setattr(builtins, "open", io_open)

    def fill(self, *_: Any, **__: Any) -> None:
        self.full = True


class FilesTask:
    """What a task leaves: scores of classes and a picture when it draws, a backbone when it finishes."""

    @staticmethod
    def of(task: Any) -> Any:
        def draw(results: Any, folder: Path) -> list[Path]:
            for path in (folder.parent / "per_class.csv", folder / "toy.png"):
                with replacing(path) as temporary:
                    temporary.write_text("name,iou\n")
            return [folder / "toy.png"]

        def finish(folder: Path) -> list[Path]:
            with replacing(folder / "backbone.safetensors") as temporary:
                temporary.write_text("weights")
            return [folder / "backbone.safetensors"]

        task.draw, task.finish = draw, finish
        return task


def _before(owner: Any, name: str, when: Callable[..., bool]) -> Callable[[Disk, Any, pytest.MonkeyPatch], None]:
    """Fill the disk at the call of a function for which `when` holds."""

    def arm(disk: Disk, task: Any, patch: pytest.MonkeyPatch) -> None:
        holder = task if owner is None else owner
        real = getattr(holder, name)

        def call(*args: Any, **more: Any) -> Any:
            if when(*args, **more):
                disk.fill()
            return real(*args, **more)

        patch.setattr(holder, name, call)

    return arm


ALWAYS: Callable[..., bool] = lambda *_, **__: True  # noqa: E731
# moment -> what fills the disk, status of the record, file that the error or the warning names
MOMENTS: dict[str, tuple[Callable[[Disk, Any, pytest.MonkeyPatch], None], str, str]] = {
    "metrics row": (_before(MetricsFile, "add", lambda _, step, __: step == 5), "failed", "metrics.csv"),
    "checkpoint": (
        _before(loop.checkpointing, "save", lambda *_, progress, **__: progress.step == 4),
        "failed",
        "step-00000004.pt",
    ),
    "results": (_before(loop, "write_results", ALWAYS), "failed", "results.jsonl"),
    "scores of classes": (_before(None, "draw", ALWAYS), "failed", "per_class.csv"),
    "curves": (_before(loop, "draw_curves", ALWAYS), "failed", "curves.png"),
    "backbone": (_before(None, "finish", ALWAYS), "failed", "backbone.safetensors"),
    "record": (_before(loop, "write_record", lambda _, r, **__: r.status == "completed"), "completed", ""),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fills_is_said_and_costs_nothing(
    moment: str, toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    monkeypatch.setattr("engine.curves.Figure.savefig", lambda _, path, **__: path.write_text("picture"))
    expected = fit(FilesTask.of(toy_task()), toy_config, recipe="toy", out=whole)
    fills, status, name = MOMENTS[moment]
    with monkeypatch.context() as patch:
        disk, task = Disk(out, patch), FilesTask.of(toy_task())
        fills(disk, task, patch)
        if status == "failed":
            with pytest.raises(OSError, match="No space left") as raised:
                fit(task, toy_config, recipe="toy", out=out)
            said = f"{raised.value} {' '.join(read_record(out).warnings)}"
            assert name in said and "MiB are free" in said
        else:
            fit(task, toy_config, recipe="toy", out=out)
    found = read_record(out)
    assert (found.status, standing(out, found)) == (status, status)
    assert found.ended is not None and (status == "completed" or "No space left" in str(found.error))
    again = fit(FilesTask.of(toy_task()), toy_config, recipe="toy", out=out, resume=True)
    assert again.status == "completed" and again.metrics == expected.metrics
    assert {p.name for p in out.rglob("*") if p.is_file()} >= {p.name for p in whole.rglob("*.*") if "tf" not in p.name}
    assert (whole / "results.jsonl").read_bytes() == (out / "results.jsonl").read_bytes()


def test_a_picture_without_room_costs_no_number(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy_task()  # which leaves no backbone
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path, patch)
        _before(None, "draw", ALWAYS)(disk, task, patch)
        fit(task, toy_config, recipe="toy", out=tmp_path)
    found = read_record(tmp_path)
    assert (found.status, found.pictures) == ("completed", ()) and found.metrics
    assert [warning.partition(" could")[0] for warning in found.warnings] == ["pictures", "curves.png"]
    assert all("No space left" in warning for warning in found.warnings)


def test_the_record_of_a_run_at_work_has_room_for_its_end(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    made = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    grown = {"status": "failed", "error": "x" * 4000, "pictures": tuple(f"pictures/{i:040}.png" for i in range(100))}
    path = record.write_record(tmp_path, type(made)(**{**made.__dict__, "status": "running"}))
    blocks = path.stat().st_size
    ended = type(made)(**{**made.__dict__, **grown})
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(tmp_path, patch)
        disk.fill()
        record.write_record(tmp_path, ended, over=True)
    assert {name: getattr(read_record(tmp_path), name) for name in grown} == grown and path.stat().st_size < blocks


def _toy_spec(config: Any, task: Any) -> Any:
    """Return what launching asks of a task."""
    return SimpleNamespace(
        build=lambda *_, **__: task,
        adopt=lambda config, **_: config,
        followed=lambda config, _: config,
        recipes={"toy": lambda: config},
        reads_tokenizer=False,
    )


def test_an_end_that_cannot_be_written_is_said_with_the_way_out(
    toy_task: Any,
    toy_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = TrainArgs(recipe="toy", data=tmp_path, out=tmp_path / "out")
    with monkeypatch.context() as patch:
        disk, task = Disk(tmp_path, patch), toy_task()
        _before(loop, "write_record", lambda _, r, **__: r.status == "completed")(disk, task, patch)
        patch.setattr(record, "_written_over", lambda *_: False)
        assert launch.carry_out(args, toy_config, _toy_spec(toy_config, task)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/out/record.json: could not be written ([Errno 28] No space left")
    assert "it does not say that the run is completed. Make room, then add --resume to the same command" in said
    found = read_record(tmp_path / "out")
    assert found.status == "running" and standing(tmp_path / "out", found) == "killed"
    again = TrainArgs(**{**vars(args), "resume": True})
    assert launch.carry_out(again, toy_config, _toy_spec(toy_config, toy_task())) == 0
    assert read_record(tmp_path / "out").metrics == found.metrics


def test_a_full_disk_under_tensorboard_alone_ends_nothing(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def add_scalar(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.training.log.SummaryWriter.add_scalar", add_scalar)
    assert fit(toy_task(), toy_config, recipe="toy", out=tmp_path).status == "completed"
    assert capsys.readouterr().out.count("TensorBoard's file is not complete, and gets no more: [Errno 28]") == 1
    assert torch.load(next((tmp_path / "checkpoints").iterdir()), weights_only=True)
