"""Checkpoints written behind a run are those that are written at once, and what fails is not lost."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training import resume
from engine.training.resume import Progress, Saver, checkpoints


def state(value: float) -> dict[str, Any]:
    return {"model": {"weight": torch.full((3,), value)}, "optimizer": {"state": {}, "param_groups": [{"lr": [value]}]}}


@pytest.mark.parametrize("behind", [False, True])
def test_what_is_saved_is_the_state_of_then(behind: bool, tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep_last=2, behind=behind)
    given, progress = state(1.0), Progress(step=1, losses={"loss": 2.0})
    for step in (1, 2, 3):
        progress.step = step
        saver.save(given, progress)
        given["model"]["weight"] += 1  # the run goes on
        progress.losses["loss"] = 0.5
    saver.finish()
    saver.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002.pt", "step-00000003.pt"]
    loaded = [torch.load(path, weights_only=True) for path in checkpoints(tmp_path)]
    assert [one["model"]["weight"][0].item() for one in loaded] == [2.0, 3.0]
    assert [one["progress"]["step"] for one in loaded] == [2, 3] and loaded[0]["progress"]["losses"] == {"loss": 0.5}


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, write = threading.Event(), resume.save

    def slow(*args: Any, **given: Any) -> Path:
        assert may_write.wait(10)
        return write(*args, **given)

    monkeypatch.setattr(resume, "save", slow)
    saver = Saver(tmp_path, keep_last=2, behind=True)
    given = state(1.0)
    saver.save(given, Progress(step=1))
    given["model"]["weight"].zero_()  # before a byte was written
    assert checkpoints(tmp_path) == []
    may_write.set()
    saver.finish()
    (path,) = checkpoints(tmp_path)
    assert torch.load(path, weights_only=True)["model"]["weight"].tolist() == [1.0] * 3


@pytest.mark.parametrize("call", ["save", "finish"])
def test_a_failure_behind_the_run_is_raised_by_the_next_call(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Path:
        raise OSError("step-00000001.pt: could not be written (No space left on device)")

    saver = Saver(tmp_path, keep_last=2, behind=True)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "save", full)
        saver.save(state(1.0), Progress(step=1))
        with pytest.raises(OSError, match="No space left"):
            saver.finish() if call == "finish" else saver.save(state(1.0), Progress(step=2))
    saver.close()
    assert checkpoints(tmp_path) == []
