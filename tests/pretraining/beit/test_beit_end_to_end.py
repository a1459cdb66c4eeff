"""A tokenizer, BEiT on its tokens, and classification from the backbone, each by its command on a few scenes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import engine.training.loop
from engine.records.record import RunRecord, read_record
from engine.runs.reopen import Asked, reevaluate
from engine.training.resume import checkpoints
from files.digest import file_sha256
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tools import pretrain, train_cls


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Send SIGTERM while the loop waits for batch number `batches`."""
    original = engine.training.loop.train_batches

    def stopping(*args: object, **kwargs: object) -> Iterator[object]:
        for number, batch in enumerate(original(*args, **kwargs), start=1):  # type: ignore[arg-type]
            if number == batches:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(engine.training.loop, "train_batches", stopping)


def whole_and_resumed(
    arguments: Callable[[Path], list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    """Run once as a whole and once with a stop; return the record, the same but for the clock."""
    whole, parts = folder / "whole", folder / "parts"
    assert pretrain.main(arguments(whole)) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert pretrain.main(arguments(parts)) == 130
    assert pretrain.main([*arguments(parts), "--resume"]) == 0
    records = read_record(whole), read_record(parts)
    assert records[0].metrics == records[1].metrics and records[0].run_id == records[1].run_id
    states = [torch.load(checkpoints(out)[-1], weights_only=True) for out in (whole, parts)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    for number, moments in states[0]["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, states[1]["optimizer"]["state"][number][name])
    for name in (*records[1].outputs, "results.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    for name in records[1].pictures:
        assert (parts / name).stat().st_size > 0
    assert reevaluate(parts, TASKS, Asked(), say=print).metrics == records[1].metrics
    return records[0]


@pytest.mark.slow
def test_tokenizer_beit_classification(
    few_scenes: ScenesIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(few_scenes.imagenet), "--batch-size", "8", "--steps", "4"]
    record = whole_and_resumed(lambda out: ["tiny_dvae", *common, "--out", str(out)], tmp_path / "dvae", monkeypatch)
    assert (record.task, record.weights_source, record.primary_metric) == ("dvae", "random", "val_mse")
    assert record.metrics.keys() == {"val_mse", "codebook_used", "codebook_perplexity"}
    assert record.outputs == ("tokenizer.safetensors",)
    assert record.pictures[:2] == ("pictures/reconstructions.png", "pictures/codebook.png")

    tokenizer = tmp_path / "dvae" / "whole" / "tokenizer.safetensors"
    beit = ["tiny_beit", *common, "--tokenizer", str(tokenizer)]
    record = whole_and_resumed(lambda out: [*beit, "--out", str(out)], tmp_path / "beit", monkeypatch)
    assert (record.task, record.primary_metric, record.config["tokenizer"]) == (
        "beit",
        "token_accuracy",
        str(tokenizer),
    )
    assert record.metrics.keys() == {"val_loss", "token_accuracy", "constant_accuracy"}
    assert record.losses.keys() == {"cross_entropy", "loss"}
    assert record.extra["tokenizer"]["sha256"] == {"tokenizer.safetensors": file_sha256(tokenizer)}

    backbone = tmp_path / "beit" / "whole" / "backbone.safetensors"
    classify = ["tiny", *common, "--out", str(tmp_path / "cls"), "--init", str(backbone)]
    capsys.readouterr()
    assert train_cls.main(classify) == 1
    assert "--init-architecture file" in capsys.readouterr().err
    assert train_cls.main([*classify, "--init-architecture", "file"]) == 0
    record = read_record(tmp_path / "cls")
    assert (record.weights_source, record.weights_sha256) == ("beit", file_sha256(backbone))
    assert record.architecture["relative_position"] == "shared_table" and record.architecture["qkv_bias"] == "qv"


def test_mistakes_are_said_in_one_line(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tiny_beit", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / "run"), "--steps", "1"]
    for more, message in (
        ([], "none was named: give --tokenizer FILE"),
        (["--tokenizer", "missing.safetensors"], "missing.safetensors: no such file"),
        (["--tokenizer", str(tmp_path), "--tokenizer-kind", "dall_e"], "encoder.pkl: no such file. DALL-E's tokenizer"),
    ):
        assert pretrain.main([*arguments, *more]) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
