"""Training from Python, against the tool; differences between arms, against the records."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from engine.records.record import read_record
from mae_transfer import read_differences, read_records, train, training
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tools import train_cls

ONE = {"steps": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, few_scenes: ScenesIndex) -> Path:
    """Two arms with two seeds each, and the weights of the second beside them."""
    root = tmp_path_factory.mktemp("arms")
    given: dict[str, Any] = {"data": few_scenes.imagenet, **ONE}
    weights = train("pretrain", "tiny", out=root / "weights", **given) / "backbone.safetensors"
    for seed in (0, 1):
        train("train_cls", "tiny", out=root / f"runs/random-{seed}", seed=seed, **given)
        train("train_cls", "tiny", out=root / f"runs/mae-{seed}", seed=seed, init=weights, **given)
    return root


def test_a_run_is_that_of_the_tool(runs: Path, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    flags = ["--steps", "1", "--batch-size", "4", "--seed", "1", "--out", str(tmp_path / "run")]
    assert train_cls.main(["tiny", "--data", str(few_scenes.imagenet), *flags]) == 0
    told, made = read_record(tmp_path / "run"), read_record(runs / "runs/random-1")
    assert (made.metrics, made.config, made.recipe) == (told.metrics, told.config, told.recipe)


def test_what_cannot_be_trained_is_said(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"data": tmp_path, "out": tmp_path / "run"}
    with pytest.raises(ValueError, match="no tool of training is called 'train'; there are: pretrain, train_cls"):
        train("train", "tiny", **given)
    with pytest.raises(ValueError, match=r"'tinny'.*Did you mean tiny\?"):
        train("train_cls", "tinny", **given)
    with pytest.raises(ValueError, match=r"--stepz 3: flags or values .* tools/train_cls\.py tiny --help-all"):
        train("train_cls", "tiny", stepz=3, **given)
    with pytest.raises(ValueError, match="show prints"):
        train("train_cls", "tiny", show=True, **given)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; --data is"):
        train("train_cls", "tiny", data=tmp_path / "nowhere", out=tmp_path / "run")
    stopped = SimpleNamespace(status="interrupted", steps=3, total_steps=9)
    monkeypatch.setattr(training, "carried_out", lambda *_: stopped)
    with pytest.raises(KeyboardInterrupt, match="run: interrupted at step 3 of 9; resume=True continues it"):
        train("train_cls", "tiny", **given)
    assert not (tmp_path / "run").exists()


def test_differences_are_those_of_the_report(runs: Path) -> None:
    frame = read_differences(runs / "runs")
    top1 = frame[frame.metric == "top1"].iloc[0]
    assert (top1.task, top1.arm, top1.reference) == ("classification", "mae", "random")
    table = read_records(runs / "runs").query("metric == 'top1'").pivot(index="seed", columns="weights", values="value")
    by_hand = table["mae"] - table["random"]
    np.testing.assert_allclose(top1.by_seed, by_hand)
    assert top1.difference == pytest.approx(by_hand.mean())
    row = next(row for row in compare(open_store(runs / "runs", TASKS)).rows if row.metric.name == "top1")
    (item,) = row.contrasts
    assert item.interval is not None and (top1.low, top1.high) == item.interval
    assert (top1.images, top1.p, top1.adjusted_p, top1.verdict) == (16, item.p, item.adjusted_p, item.verdict)
    assert [*frame.metric] == ["top1"], "the metrics of the report"
    assert (top1.unit, top1.higher_is_better) == ("%", True)


def test_what_cannot_be_compared_is_said(runs: Path, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": few_scenes.imagenet, **ONE}
    train("train_cls", "tiny", out=tmp_path / "a", **given)
    with pytest.raises(ValueError, match=r"nothing in it can be compared\. Two arms with a common seed are needed"):
        read_differences(tmp_path)
    weights = runs / "weights/backbone.safetensors"
    train("train_cls", "tiny", out=tmp_path / "b", init=weights, **given)
    with pytest.warns(UserWarning, match="top1: images taken as they are, intervals over seeds alone"):
        frame = read_differences(tmp_path)
    assert frame.low.isna().all() and pd.notna(frame.difference).all(), "one seed has no interval"
    train("train_cls", "tiny", out=tmp_path / "c", init=weights, seed=1, base_lr=9.0, **given)
    with (
        pytest.warns(UserWarning, match="classification: not compared: "),
        pytest.raises(ValueError, match=r"nothing in it can be compared.*base_lr"),
    ):
        read_differences(tmp_path)
