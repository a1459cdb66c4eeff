"""Numbers that are read behind the device: what is logged, and a loss that is none, one step late at most."""

import csv
from dataclasses import replace

import pytest
import torch

from engine.config import Duration
from engine.training.data import image_at
from engine.training.loop import fit
from engine.training.resume import checkpoints
from engine.training.stop import NonFiniteError


def run_of(config, **changes):
    return replace(config, run=replace(config.run, **changes))


def rows(out, name):
    with (out / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["name"] == name}


def test_steps_that_are_logged_have_their_own_numbers(toy_task, toy_config, tmp_path) -> None:
    """A row is of its step, whether the steps before were read or not."""
    for every, name in ((1, "all"), (3, "some")):
        fit(toy_task(), run_of(toy_config, log_every=every), recipe="toy", out=tmp_path / name)
    for value in ("loss", "square", "grad_norm"):
        every, some = rows(tmp_path / "all", value), rows(tmp_path / "some", value)
        assert [*some] == [1, 3, 6, 7] and all(every[step] == number for step, number in some.items())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("after", [torch.zeros, None])
def test_a_fault_between_two_rows_is_of_its_step_and_images(toy_task, toy_config, tmp_path, accumulate, after) -> None:
    """The step after it may run, may fail by itself, and leaves no checkpoint."""
    task = toy_task()
    original, seen = task.model.forward, []

    def forward(batch):
        seen.append(batch[1])
        losses = original(batch)
        micro = len(seen) - 1
        if after is None and micro > 3 * accumulate + accumulate - 1:
            raise FloatingPointError("the weights are not finite")  # as detectron2 does
        worst = micro == 3 * accumulate + accumulate - 1  # the last micro-batch of the fourth step
        return {name: value * (float("nan") if worst else 1.0) for name, value in losses.items()}

    task.model.forward = forward
    config = run_of(toy_config, log_every=100, save_every=Duration(3), eval_every=None, accumulate=accumulate)
    config = run_of(config, length=Duration(6))
    with pytest.raises(NonFiniteError) as caught:
        fit(task, config, recipe="toy", out=tmp_path)
    message, images = str(caught.value), ", ".join(seen[4 * accumulate - 1])
    assert "the loss is not finite at step 3 (square nan, absolute nan, loss nan on process 0; lr " in message
    assert f"images of the batch: {images}. Last good checkpoint: " in message and "step-00000003.pt" in message
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003.pt"]
    drawn = [f"{image_at(position, seed=0, size=24)}.jpg" for position in range(24, 32)]
    assert seen[3 * accumulate : 4 * accumulate] == [drawn[n::1][: 8 // accumulate] for n in (0, 4)[:accumulate]]


def test_a_fault_before_a_checkpoint_is_seen_before_it_is_written(toy_task, toy_config, tmp_path) -> None:
    task = toy_task()
    original, calls = task.model.forward, []

    def forward(batch):
        calls.append(None)
        return {name: value * (float("inf") if len(calls) == 4 else 1.0) for name, value in original(batch).items()}

    task.model.forward = forward
    config = run_of(toy_config, log_every=100, save_every=Duration(2), eval_every=None, accumulate=1)
    with pytest.raises(NonFiniteError, match=r"at step 3 .*step-00000002\.pt"):
        fit(task, config, recipe="toy", out=tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002.pt"] and len(calls) == 4


def test_a_gradient_that_is_none_is_named(toy_task, toy_config, tmp_path) -> None:
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    task = toy_task()
    original = task.model.forward
    task.model.forward = lambda batch: {name: Poison.apply(value) for name, value in original(batch).items()}
    with pytest.raises(NonFiniteError, match=r"the gradient is not finite at step 0 \(square [0-9.]+, "):
        fit(task, run_of(toy_config, log_every=100), recipe="toy", out=tmp_path)
