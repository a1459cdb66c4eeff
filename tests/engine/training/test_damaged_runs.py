"""A run's files that were damaged: never another number, and a good checkpoint is never put away."""

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.records.metrics_file import Mark, MetricsFile, parse_rows
from engine.records.own_files import damaged_files, own_file
from engine.records.record import read_record
from engine.records.results_file import read_results
from engine.training.loop import fit
from engine.training.resume import Progress, checkpoints, load_model, read_checkpoint, save


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of so small a run."""
    monkeypatch.setattr("engine.training.loop.draw_curves", lambda *_: [])


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        made = change(state)
        torch.save(state if made is None else made, path)

    return damage


def _nan(state: dict[str, Any]) -> None:
    state["model"]["head.weight"][0, 0] = float("nan")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "damaged or truncated"),
    "no zip": (lambda path: path.write_bytes(b"hello"), "damaged or truncated"),
    "list": (_changed(lambda state: [1, 2]), "it holds a list in place of model"),
    "no model": (_changed(lambda state: state.pop("model") and None), "it holds no model"),
    "no optimizer": (_changed(lambda state: {**state, "optimizer": {}}), "optimizer holds no state"),
    "no progress": (_changed(lambda state: {**state, "progress": [3]}), "it holds no progress"),
    "step": (_changed(lambda state: state["progress"].update(step="4")), "step: '4' is no whole number"),
    "evaluations": (_changed(lambda state: state["progress"].update(evaluations=[{"step": 3}])), "needs metrics"),
    "nan": (_changed(_nan), r"its model is not finite in head\.weight"),
    "weights": (_changed(lambda state: state["model"].update({"head.weight": 3})), "is no tensor"),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("left", [1, 0])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(
    name: str, left: int, toy_task: Any, toy_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    for path in checkpoints(tmp_path)[left:]:
        DAMAGES[name][0](path)
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    assert again.metrics == record.metrics and again.evaluations == record.evaluations
    assert len(again.warnings) == 2 - left
    assert all(".pt: not a readable checkpoint (" in warning for warning in again.warnings)
    assert re.search(DAMAGES[name][1], again.warnings[0]), again.warnings[0]
    assert ("holds no checkpoint to resume; the run starts at its first step" in capsys.readouterr().out) == (not left)


def test_no_flipped_bit_of_a_checkpoint_gives_other_weights(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    path = checkpoints(tmp_path)[-1]
    whole, right = path.read_bytes(), read_checkpoint(path, ["head.weight"])
    refused = 0
    for place in random.Random(0).sample(range(8 * len(whole)), 400):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path, ["head.weight"])
        except ValueError as error:
            assert str(error).startswith(f"{path}: not a readable checkpoint")
            refused += 1
            continue
        assert found["progress"] == right["progress"]
        assert all(torch.equal(value, found["model"][name]) for name, value in right["model"].items())
    assert refused > 100  # the others lie between the parts of the file


def test_weights_of_another_model_are_an_error_and_stay_where_they_are(
    toy_task: Any, toy_config: Any, tmp_path: Path
) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    before = checkpoints(tmp_path)
    task = toy_task()
    task.model.head = nn.Linear(4, 2)
    with pytest.raises(ValueError, match=r"step-00000007\.pt: its weights do not fit the model"):
        fit(task, toy_config, recipe="toy", out=tmp_path, resume=True)
    assert checkpoints(tmp_path) == before


def test_a_damaged_checkpoint_is_not_evaluated(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    path = checkpoints(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"step-00000007\.pt: not a readable checkpoint .*--resume"):
        load_model(path, toy_task().model)


def test_checkpoints_without_settings_are_nobodys(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    (tmp_path / "config.json").unlink()
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"holds checkpoints \(step-00000007\.pt\) without config\.json"):
            fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=resume)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"recipe": "toy"'])
def test_settings_that_cannot_be_read_name_their_file(
    content: str, toy_task: Any, toy_config: Any, tmp_path: Path
) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: .*cannot be resumed without it"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)


def test_a_picture_that_fails_costs_no_number(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy_task()

    def draw(*_: Any) -> list[Path]:
        raise RuntimeError("no glyph\nof this name")

    task.draw = draw
    monkeypatch.setattr("engine.training.loop.draw_curves", draw)

    def finish(folder: Path) -> list[Path]:
        (folder / "backbone.safetensors").write_bytes(b"weights")
        return [folder / "backbone.safetensors"]

    monkeypatch.setattr(task, "finish", finish)
    record = fit(task, toy_config, recipe="toy", out=tmp_path)
    assert (record.status, record.pictures, record.outputs) == ("completed", (), ("backbone.safetensors",))
    assert record.warnings == tuple(
        f"{what} could not be drawn (RuntimeError: no glyph of this name); the results are complete without."
        for what in ("pictures", "curves.png")
    )
    assert (read_record(tmp_path).warnings, read_record(tmp_path).metrics) == (record.warnings, record.metrics)
    assert len(read_results(tmp_path / "results.jsonl")) == 8


def test_an_interrupt_while_drawing_is_no_failed_picture(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    task = toy_task()

    def draw(*_: Any) -> list[Path]:
        raise KeyboardInterrupt

    task.draw = draw
    with pytest.raises(KeyboardInterrupt):
        fit(task, toy_config, recipe="toy", out=tmp_path)
    assert read_record(tmp_path).metrics.keys() == {"error"}
    state = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    assert [evaluation["step"] for evaluation in state["progress"]["evaluations"]] == [3, 6, 7]


def test_a_results_file_is_the_one_of_its_record(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    path = tmp_path / "results.jsonl"
    assert len(read_results(path, sha256=record.results_sha256)) == 8
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(ValueError, match=r"results\.jsonl: is not the file that its record speaks of"):
        read_results(path, sha256=record.results_sha256)
    path.write_text('{"image_id": "a"}\n[1]\n')
    with pytest.raises(ValueError, match=r"results\.jsonl: line 2 is no result of an image"):
        read_results(path)
    path.write_text('{"image_id": "a"}\n{"image_id": "b", "er')
    with pytest.raises(ValueError, match=r"results\.jsonl: line 2: not valid JSON"):
        read_results(path)


def test_an_edited_record_is_refused_with_the_way_out(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    path = tmp_path / "record.json"
    values = json.loads(path.read_text())
    values["metrics"]["error"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"record\.json: .*not what was written .*remove its 'sha256'"):
        read_record(tmp_path)
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert read_record(tmp_path).metrics == values["metrics"]


TORN = {
    "torn in the middle of a step": b"5,lo",
    "torn in its number": b"5,loss,0.1234",
    "merged with the next": b"5,lo5,loss,0.5\r\n",
    "zeros": bytes(64),
    "no step": b"five,loss,0.5\r\n",
    "no value": b"5,loss,0.5x\r\n",
    "an open quote": b'5,"loss,0.5\r\n',
    "no text": b"\xff\xfe\r\n",
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
def test_a_torn_row_is_dropped_counted_and_merges_with_nothing(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    good = b"step,name,value\r\n1,loss,0.5\r\n2,loss,nan\r\n"
    path.write_bytes(good + torn)
    metrics = MetricsFile(tmp_path, step=2, evaluated=True, mark=Mark())
    assert metrics.problem is not None and "1 of its lines (the first: line 4) are no step" in metrics.problem
    metrics.add(3, {"loss": 0.25, "a,b": 1e-7})
    assert path.read_bytes() == good + b'3,loss,0.25\r\n3,"a,b",1e-07\r\n'
    assert parse_rows(path.read_bytes())[1] == []


def test_a_run_with_torn_metrics_is_resumed(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    whole = (tmp_path / "metrics.csv").read_bytes()
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(b"8,lo")
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)  # cut to what its checkpoint knows
    assert (tmp_path / "metrics.csv").read_bytes() == whole and again.warnings == ()
    (tmp_path / "metrics.csv").write_bytes(whole.replace(b"loss", b"lo\0s", 1))
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    assert "1 of its lines (the first: line 4)" in again.warnings[0] and again.metrics == record.metrics
    (tmp_path / "metrics.csv").write_bytes(whole.replace(b"loss,0", b"loss,1", 1).replace(b"loss,1.", b"loss,2.", 1))
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    assert "is not what it was at the checkpoint" in again.warnings[0] and again.metrics == record.metrics


def test_rows_from_the_mark_on_are_written_again(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, step=0, evaluated=False, mark=Mark())
    metrics.add(1, {"loss": 0.5})
    mark = metrics.mark()
    metrics.add(1, {"val/error": 0.1})
    metrics.add(2, {"loss": 0.4})
    MetricsFile(tmp_path, step=1, evaluated=False, mark=mark)
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\r\n1,loss,0.5\r\n"


def test_keep_one_checkpoint_still_resumes(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    config = replace(toy_config, run=replace(toy_config.run, keep_last=1))
    first = fit(toy_task(), config, recipe="toy", out=tmp_path)
    assert fit(toy_task(), config, recipe="toy", out=tmp_path, resume=True).metrics == first.metrics


@pytest.mark.parametrize(
    "name", ["checkpoints", "step", "metrics.csv", "config.json", "record.json", "pictures", "tensorboard"]
)
def test_a_link_out_of_the_run_is_refused_before_the_first_step(
    name: str, toy_task: Any, toy_config: Any, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    fit(toy_task(), toy_config, recipe="toy", out=run)
    path = checkpoints(run)[-1] if name == "step" else run / name
    path.rename(other)
    path.symlink_to(other)
    content = {file: file.read_bytes() for file in [*other.rglob("*"), other] if file.is_file()}
    task = toy_task()
    with pytest.raises(ValueError, match=f"{path} is a link to {other}; what is read from or written to"):
        fit(task, toy_config, recipe="toy", out=run, resume=True)
    assert task.train_data.reads <= 0  # not even the look for a readable image
    assert content == {file: file.read_bytes() for file in [*other.rglob("*"), other] if file.is_file()}


def test_a_new_run_does_not_write_behind_a_link(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    """A file of another run is neither replaced nor pruned, though it has the name of one of this run's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "step-00000002.pt").write_bytes(b"of another run")
    (tmp_path / "run" / "checkpoints").symlink_to("../other")
    with pytest.raises(ValueError, match="checkpoints is a link to"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "run")
    with pytest.raises(ValueError, match="checkpoints is a link to"):
        save(tmp_path / "run", state={}, progress=Progress(step=2), keep_last=1)
    assert (tmp_path / "other" / "step-00000002.pt").read_bytes() == b"of another run"


def test_links_that_stay_inside_and_a_linked_run_are_taken(toy_task: Any, toy_config: Any, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "run")
    (tmp_path / "disk" / "checkpoints").rename(tmp_path / "disk" / "kept")
    (tmp_path / "disk" / "checkpoints").symlink_to("kept")
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "run", resume=True)
    assert again.metrics == record.metrics and len(checkpoints(tmp_path / "run")) == 2


def test_a_finished_run_knows_its_files(
    toy_task: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy_task()

    def finish(folder: Path) -> list[Path]:
        (folder / "backbone.safetensors").write_bytes(b"weights")
        (folder / "per_class.csv").write_text("name,iou\na,1\n")
        return [folder / "backbone.safetensors"]

    monkeypatch.setattr(task, "finish", finish)
    fit(task, toy_config, recipe="toy", out=tmp_path)
    record = read_record(tmp_path)
    assert record.files_sha256 == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("metrics.csv", "per_class.csv", "backbone.safetensors")
    }
    assert not damaged_files(tmp_path, record)
    for name in record.files_sha256:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(bytes([*whole[:-3], whole[-3] ^ 1, *whole[-2:]]))
        assert damaged_files(tmp_path, record).keys() == {name}
        assert f"{tmp_path / name}: is not the file that its record" in damaged_files(tmp_path, record)[name]
        assert not damaged_files(tmp_path, replace(record, files_sha256={}))  # a record of before
        (tmp_path / name).unlink()
        assert own_file(tmp_path, record, name) is None
        (tmp_path / name).write_bytes(whole)
