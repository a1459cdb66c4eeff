"""The loop on a toy task: numbers, interruption, resume, failure."""

import csv
import json
import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.config import Duration
from engine.records.record import read_record
from engine.training import evaluation
from engine.training.data import Loading, check_readable, image_at
from engine.training.loop import fit
from engine.training.resume import checkpoints
from engine.training.seeding import derive, seed_all, seeded
from engine.training.stop import NonFiniteError


def _state(out: Path) -> dict:
    return torch.load(checkpoints(out)[-1], weights_only=True)


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_first_step_is_adamw_by_hand(toy_task, toy_config, tmp_path) -> None:
    """One step with one micro-batch: the loop's weights equal a plain AdamW step on the same batch and seed."""
    run = replace(
        toy_config.run, length=Duration(1), accumulate=1, eval_every=None, save_every=None,
        optim=replace(toy_config.run.optim, clip_norm=None),
        schedule=replace(toy_config.run.schedule, warmup=Duration(0)),
    )  # fmt: skip
    ours = toy_task()
    fit(ours, replace(toy_config, run=run), recipe="toy", out=tmp_path / "run")

    plain = toy_task()
    samples = []
    for position in range(8):
        with seeded(derive(0, "sample", position)):
            samples.append(plain.train_data[image_at(position, seed=0, size=24)])
    groups = plain.param_groups(run.optim)
    optimizer = torch.optim.AdamW(
        [{"params": list(g.params), "lr": 0.05 * g.lr_scale, "weight_decay": g.weight_decay} for g in groups],
        betas=run.optim.betas,
    )
    seed_all(derive(0, "step", 0, 0, 0))
    sum(plain.model(plain.collate(samples)).values()).backward()
    optimizer.step()
    for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # the loop's fused kernel rounds otherwise


def test_layer_decay_reaches_the_optimiser(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    scales = {g["lr_scale"] for g in _state(tmp_path)["optimizer"]["param_groups"]}
    assert scales == {0.5, 1.0}  # depth 1: block 0 is layer 1 of 2


def test_results_of_two_processes_are_in_order_past_unreadable_images(toy_task, toy_config, monkeypatch) -> None:
    """Process 0 has images 0, 2, 4, 6 and can read 6 alone, process 1 can read all of 1, 3, 5, 7."""
    parts: list[object] = []

    def of_both(_: object, part: object) -> list[object]:
        parts.append(part)
        return parts

    monkeypatch.setattr(evaluation, "on_any", lambda _, flag: flag)
    monkeypatch.setattr(evaluation, "from_each", of_both)
    monkeypatch.setattr(evaluation, "from_first", lambda _, make: make())
    task, run = toy_task(), replace(toy_config.run, eval_batch_size=2)
    task.val_data.unreadable = {0, 2, 4}
    for rank in (0, 1):
        fabric = SimpleNamespace(
            world_size=2, global_rank=rank, device=torch.device("cpu"), autocast=nullcontext, to_device=lambda x: x
        )
        found = evaluation.evaluate(task, run, fabric, stop=lambda: False, progress=lambda *_: None)
    assert [result.image_id for result in found.results] == ["1.jpg", "3.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert found.unreadable.keys() == {f"folder/{n}.jpg" for n in (0, 2, 4)}


def test_a_run_stopped_before_its_first_step_claims_no_checkpoint(
    toy_task, toy_config, tmp_path, monkeypatch, capsys
) -> None:
    task = toy_task()
    groups, calls = task.param_groups, []

    def signalled(optim):
        calls.append(optim)
        if len(calls) == 2:  # the first looks whether they can be made, before anything is written
            signal.raise_signal(signal.SIGTERM)
        return groups(optim)

    monkeypatch.setattr(task, "param_groups", signalled)
    stopped = fit(task, toy_config, recipe="toy", out=tmp_path)
    assert (stopped.status, stopped.steps) == ("interrupted", 0) and not checkpoints(tmp_path)
    said = capsys.readouterr().out
    assert "interrupted by SIGTERM before the first step: nothing to save. Begin again with --resume." in said
    assert "saved. Continue" not in said
    assert fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True).status == "completed"


@pytest.mark.parametrize("read", [1, 9, 17, 33, 50])
def test_interrupted_and_resumed_equals_uninterrupted(read, toy_task, toy_config, tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record = fit(toy_task(), toy_config, recipe="toy", out=whole)

    stopped_task = toy_task()
    stopped_task.train_data.signal_at_read = read
    stopped = fit(stopped_task, toy_config, recipe="toy", out=parts)
    assert stopped.status == "interrupted" and stopped.error == "SIGTERM"
    assert stopped.steps == (read - 1) // 8 + 1
    assert read_record(parts).status == "interrupted"

    resumed = fit(toy_task(), toy_config, recipe="toy", out=parts, resume=True)
    assert resumed.status == "completed"
    assert resumed.metrics == record.metrics
    assert resumed.evaluations == record.evaluations
    assert [e.step for e in resumed.evaluations] == [3, 6, 7]
    a, b = _state(whole), _state(parts)
    assert _same(a["model"], b["model"]) and _same(a["optimizer"], b["optimizer"])
    assert (whole / "results.jsonl").read_text() == (parts / "results.jsonl").read_text()
    rows = [list(csv.reader((out / "metrics.csv").read_text().splitlines())) for out in (whole, parts)]
    timeless = [[r for r in table if r[1] not in ("images_per_second", "data_wait")] for table in rows]
    assert timeless[0] == timeless[1]


def test_stop_during_evaluation_is_resumed_exactly(toy_task, toy_config, tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record = fit(toy_task(), toy_config, recipe="toy", out=whole)
    task = toy_task()
    task.val_data.signal_at_read = 12  # the second evaluation, at step 6
    stopped = fit(task, replace(toy_config, run=replace(toy_config.run, eval_batch_size=2)), recipe="toy", out=parts)
    assert stopped.status == "interrupted" and stopped.steps == 6 and len(stopped.evaluations) == 1
    resumed = fit(toy_task(), toy_config, recipe="toy", out=parts, resume=True)
    assert resumed.evaluations == record.evaluations


def test_loader_processes_change_nothing(toy_task, toy_config, tmp_path) -> None:
    none = fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "a")
    two = fit(
        toy_task(),
        replace(toy_config, run=replace(toy_config.run, workers=2)),
        recipe="toy",
        out=tmp_path / "b",
    )
    assert none.metrics == two.metrics and none.run_id == two.run_id


def test_accumulation_averages_micro_batches(toy_task, toy_config, tmp_path) -> None:
    """Without dropout two micro-batches of 4 are one batch of 8, up to float32 summation order."""
    weights = []
    for accumulate in (1, 2):
        task = toy_task()
        task.model.drop = torch.nn.Identity()
        config = replace(toy_config, run=replace(toy_config.run, accumulate=accumulate))
        fit(task, config, recipe="toy", out=tmp_path / str(accumulate))
        weights.append([p.detach() for p in task.model.parameters()])
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_record_holds_what_tables_need(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    record = read_record(tmp_path)
    assert (record.status, record.steps, record.samples_seen) == ("completed", 7, 56)
    assert record.cost.parameters == 4 * 4 + 4 + 4 + 1
    assert record.metrics.keys() == {"error"} and record.primary_metric == "error"
    assert record.config["run"]["batch_size"] == 8
    assert record.results_file == "results.jsonl" and record.pictures == ("pictures/toy.txt", "pictures/curves.png")
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 8
    assert len(checkpoints(tmp_path)) == 2  # keep_last


def test_folder_with_another_run_is_refused(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    with pytest.raises(ValueError, match=r"holds a run already.*--resume"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    changed = replace(toy_config, run=replace(toy_config.run, batch_size=4))
    with pytest.raises(ValueError, match=r"config\.run\.batch_size: 8 -> 4"):
        fit(toy_task(), changed, recipe="toy", out=tmp_path, resume=True)


def test_folder_that_is_a_file_is_refused(toy_task, toy_config, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path / "file")


def test_resume_without_a_run_starts_one_and_says_so(toy_task, toy_config, tmp_path, capsys) -> None:
    assert fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True).status == "completed"
    assert f"warning: {tmp_path} holds no checkpoint to resume; the run starts" in capsys.readouterr().out


def test_truncated_checkpoint_falls_back_to_the_one_before(toy_task, toy_config, tmp_path, capsys) -> None:
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    again = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    assert f"{newest}: not a readable checkpoint" in capsys.readouterr().out
    assert again.metrics == record.metrics


def test_nan_stops_the_run_and_names_the_images(toy_task, toy_config, tmp_path) -> None:
    task = toy_task()
    task.train_data.nan = set(range(12, 24))
    with pytest.raises(NonFiniteError) as caught:
        fit(task, toy_config, recipe="toy", out=tmp_path)
    message = str(caught.value)
    assert "the loss is not finite at step 0" in message and ".jpg" in message and "none yet" in message
    record = read_record(tmp_path)
    assert record.status == "failed" and record.error is not None and "NonFiniteError" in record.error


def test_non_finite_later_names_the_last_checkpoint(toy_task, toy_config, tmp_path) -> None:
    task = toy_task()
    original = task.model.forward

    def explode(batch: object) -> dict[str, torch.Tensor]:
        explode.calls += 1  # type: ignore[attr-defined]
        losses = original(batch)
        return {k: v * (float("inf") if explode.calls > 8 else 1.0) for k, v in losses.items()}  # type: ignore[attr-defined]

    explode.calls = 0  # type: ignore[attr-defined]
    task.model.forward = explode
    with pytest.raises(NonFiniteError, match=r"step 4 .*step-00000004\.pt"):
        fit(task, toy_config, recipe="toy", out=tmp_path)


def test_unreadable_images_are_counted_and_replaced(toy_task, toy_config, tmp_path, capsys) -> None:
    task = toy_task()
    task.train_data.unreadable = {2, 5}
    task.val_data.unreadable = {1}
    record = fit(task, toy_config, recipe="toy", out=tmp_path)
    assert record.status == "completed"
    assert sorted(record.unreadable_images) == [f"folder/{i}.jpg: truncated" for i in (1, 2, 5)]
    assert "folder/5.jpg: unreadable image (truncated)" in capsys.readouterr().out
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_without_a_readable_image_is_refused_before_the_first_step(
    toy_task, toy_config, tmp_path, split: str, workers: int
) -> None:
    task = toy_task()
    data = {"train": task.train_data, "val": task.val_data}[split]
    data.unreadable = set(range(len(data)))
    many = replace(toy_config, run=replace(toy_config.run, max_unreadable=30, workers=workers))
    few = replace(toy_config, run=replace(toy_config.run, max_unreadable=2, workers=workers))
    for config, says in (
        (
            many,
            rf"toy: none of the {len(data)} image\(s\) of split {split} can be read; the first: folder/\d+\.jpg: ",
        ),
        (few, rf"toy: of split {split} the first 3 images of {len(data)} cannot be read, more than max_unreadable = 2"),
    ):
        with pytest.raises(ValueError, match=says):
            fit(task, config, recipe="toy", out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_the_look_for_a_readable_image_reads_little(toy_task, toy_config, tmp_path) -> None:
    """What the run bears is still borne, and the first image that can be read ends the look."""
    task = toy_task()
    task.val_data.unreadable = {0, 1}
    check_readable(task, seed=0, most=2, loading=Loading())
    assert (task.train_data.reads, task.val_data.reads) == (0, 2)
    assert fit(task, toy_config, recipe="toy", out=tmp_path).status == "completed"


def test_too_many_unreadable_images_stop_the_run(toy_task, toy_config, tmp_path) -> None:
    task = toy_task()
    task.train_data.unreadable = {1, 2, 3}
    config = replace(toy_config, run=replace(toy_config.run, max_unreadable=2))
    with pytest.raises(ValueError, match=r"more than max_unreadable = 2; .* raise the limit by --max-unreadable"):
        fit(task, config, recipe="toy", out=tmp_path)
    assert read_record(tmp_path).status == "failed"


def test_full_disk_keeps_the_previous_checkpoint(toy_task, toy_config, tmp_path, monkeypatch) -> None:
    real = torch.save

    def save(state: object, path: Path) -> None:
        if state["progress"]["step"] == 4:  # type: ignore[index]
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=r"step-00000004\.pt: could not be written .*MiB are free"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000002.pt"]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert read_record(tmp_path).status == "failed"
    monkeypatch.undo()
    resumed = fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    assert resumed.metrics == fit(toy_task(), toy_config, recipe="toy", out=tmp_path.parent / "whole").metrics


def test_batch_that_cannot_be_shared_is_refused(toy_task, toy_config, tmp_path) -> None:
    with pytest.raises(ValueError, match="batch_size 9 is not divisible by accumulate 2"):
        replace(toy_config.run, batch_size=9)


def test_empty_training_split_is_refused(toy_task, toy_config, tmp_path) -> None:
    task = toy_task()
    task.train_data.points = task.train_data.points[:0]
    with pytest.raises(ValueError, match=r"toy: the training split train holds no image"):
        fit(task, toy_config, recipe="toy", out=tmp_path)


def test_identity_is_plain_json(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["recipe"] == "toy"
    assert not list(tmp_path.glob(".*.part"))


def test_other_data_is_refused_on_resume(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    task = toy_task()
    task.facts = replace(task.facts, train_images=25, extra={"classes": ["a"]})
    with pytest.raises(ValueError, match=r"data\.classes: None -> \['a'\]; data\.train_images: 24 -> 25"):
        fit(task, toy_config, recipe="toy", out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "changes", [{"length": Duration(0)}, {"batch_size": 1, "accumulate": 1, "length": Duration(-1)}]
)
def test_a_refused_start_leaves_the_folder_free(changes, toy_task, toy_config, tmp_path) -> None:
    bad = replace(toy_config, run=replace(toy_config.run, **changes))
    with pytest.raises(ValueError, match=r"less than one step|negative"):
        fit(toy_task(), bad, recipe="toy", out=tmp_path)
    assert fit(toy_task(), toy_config, recipe="toy", out=tmp_path).status == "completed"


def test_a_broken_checkpoint_is_not_kept_in_place_of_a_good_one(toy_task, toy_config, tmp_path) -> None:
    config = replace(toy_config, run=replace(toy_config.run, keep_last=1))
    task = toy_task()
    task.train_data.signal_at_read = 30
    assert fit(task, config, recipe="toy", out=tmp_path).status == "interrupted"
    (tmp_path / "checkpoints" / "step-00000007.pt").write_bytes(b"half a file")
    task = toy_task()
    task.train_data.signal_at_read = 9
    stopped = fit(task, config, recipe="toy", out=tmp_path, resume=True)
    assert [p.name for p in checkpoints(tmp_path)] == [f"step-{stopped.steps:08d}.pt"]
    assert (tmp_path / "checkpoints" / "step-00000007.pt.broken").exists()


def test_rows_of_a_repeated_evaluation_are_written_once(toy_task, toy_config, tmp_path) -> None:
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    fit(toy_task(), toy_config, recipe="toy", out=tmp_path, resume=True)
    rows = [row.split(",")[:2] for row in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert sorted(row for row in rows if row[1] == "val/error") == [[step, "val/error"] for step in ("3", "6", "7")]


def test_folder_that_turns_read_only_keeps_the_previous_checkpoint(toy_task, toy_config, tmp_path, monkeypatch) -> None:
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "step-00000004.pt":
            raise OSError(30, "Read-only file system")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"step-00000004\.pt: could not be written .*Read-only file system"):
        fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000002.pt"]


def test_a_value_without_gradient_is_logged_and_not_summed(toy_task, toy_config, tmp_path) -> None:
    plain, watched = toy_task(), toy_task()
    original = watched.model.forward
    watched.model.forward = lambda batch: {**original(batch), "accuracy": torch.tensor(40.0)}
    fit(plain, toy_config, recipe="toy", out=tmp_path / "plain")
    record = fit(watched, toy_config, recipe="toy", out=tmp_path / "watched")
    assert record.losses["accuracy"] == 40.0
    assert record.losses["loss"] == pytest.approx(record.losses["square"] + record.losses["absolute"])
    a, b = _state(tmp_path / "plain"), _state(tmp_path / "watched")
    assert _same(a["model"], b["model"])
