"""How often a training step waits for the device, counted by dispatch on the CPU: not at all where it does not log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.training import loop
from engine.training.log import RunLog
from tests.conftest import ScenesIndex
from tools import pretrain, train_cls, train_det, train_seg

aten = torch.ops.aten
# what asks a device for a number: a value, a truth, a shape that depends on values
WAITS = {aten._local_scalar_dense, aten.equal, aten.nonzero, aten.is_nonzero, aten.masked_select, aten._unique2}
WAITS |= {
    aten.linalg_eigh,
    aten._linalg_eigh,
    aten._linalg_svd,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.bincount,
}
BY_MASK = {aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}


class Waits(TorchDispatchMode):
    """Counts the operations that would have the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.paused = 0, 0
        self.said: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.paused:
            packet = func.overloadpacket
            by_mask = packet in BY_MASK and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            if packet in WAITS or by_mask:
                self.count += 1
                self.said.append(str(packet))
        return func(*args, **(kwargs or {}))


def counted(monkeypatch: pytest.MonkeyPatch, main: Any, argv: list[str]) -> tuple[list[int], list[str]]:
    """Return the waits of every step of a run; the loading of images is left out, which is the host's."""
    waits, at = Waits(), []
    batches, step = loop.train_batches, RunLog.step

    def loading(*args: Any, **given: Any) -> Iterator[Any]:
        made = batches(*args, **given)
        while True:
            waits.paused += 1
            batch = next(made, None)
            waits.paused -= 1
            if batch is None:
                return
            yield batch

    def stepped(self: RunLog, *args: Any, **given: Any) -> None:
        at.append(waits.count)
        step(self, *args, **given)

    monkeypatch.setattr(loop, "train_batches", loading)
    monkeypatch.setattr(RunLog, "step", stepped)
    with waits:
        assert main(argv) == 0
    return [after - before for before, after in zip([0, *at], at, strict=False)], waits.said


CASES = {
    "mae": (pretrain, "tiny", "imagenet", ["--ema-decay", "0.9"]),
    "mae-pixels": (pretrain, "tiny", "imagenet", ["--target", "pixels", "--sampling", "block"]),
    "labels": (pretrain, "tiny_supervised", "imagenet", []),
    "moco_v3": (pretrain, "tiny_moco_v3", "imagenet", []),
    "dvae": (pretrain, "tiny_dvae", "imagenet", []),
    "classification": (train_cls, "tiny", "imagenet", ["--clip-norm", "1"]),
    "linear": (train_cls, "tiny", "imagenet", ["--protocol", "linear"]),
    "segmentation": (train_seg, "tiny", "ade20k", []),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.sweep)])
def test_a_step_that_does_not_log_does_not_wait(
    case: str, accumulate: int, few_scenes: ScenesIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, recipe, layout, flags = CASES[case]
    argv = [recipe, "--data", str(getattr(few_scenes, layout)), "--out", str(tmp_path / "run"), "--steps", "5"]
    argv += ["--batch-size", "4", "--accumulate", str(accumulate), "--log-every", "100", "--warmup", "1", *flags]
    waits, said = counted(monkeypatch, tool.main, argv)
    assert len(waits) == 5
    assert waits[1:4] == [0, 0, 0], said


def test_a_detector_waits_for_its_own_choices(
    few_scenes: ScenesIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """detectron2 samples proposals by masks, so it waits dozens of times; the loop adds none."""
    argv = ["tiny", "--data", str(few_scenes.coco), "--out", str(tmp_path / "run"), "--steps", "5"]
    waits, _ = counted(monkeypatch, train_det.main, [*argv, "--batch-size", "2", "--log-every", "100", "--warmup", "1"])
    assert all(count > 10 for count in waits[1:4])
