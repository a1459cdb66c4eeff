"""The cost of use: times by a clock of our own, what a record keeps of them, and a real run of each task."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.records.record import read_record, write_record
from engine.records.use import BatchUse, Conditions, Use, spread, use_lines, with_use
from engine.runs import use as measuring
from engine.runs.use import Meter, Wanted, timed
from files.locking import locked
from scenes.layouts import ScenesIndex
from tools import evaluate, measure_cost, train_cls, train_det, train_seg

ROOT = Path(__file__).resolve().parents[3]
ON = Conditions(device="a processor", threads=2, precision="32-true", torch="2.14.0", images_sha256="ab" * 32)
BATCH = BatchUse(
    batch=4,
    sizes=((32, 48), (16, 16)),
    warm_up_seconds=(9.0,),
    seconds=(0.1, 0.2, 0.4, 0.3),
    held_bytes=2**20,
    peak_bytes=None,
)
USE = Use(
    step=7,
    conditions=ON,
    images=4,
    parameters=1_500_000,
    weights_bytes=6 * 2**20,
    checkpoint_bytes=18 * 2**20,
    batches=(BATCH,),
    measured="2026-01-01T00:00:00+00:00",
)


def test_calls_by_a_clock_of_our_own() -> None:
    seen: list[str] = []
    now, lasts = [100.0], iter([8.0, 2.0, 0.5, 0.25, 1.0])

    def clock() -> float:
        seen.append("clock")
        return now[0]

    def call() -> None:
        seen.append("call")

    def wait() -> None:
        # a device that works on after the call has returned: its time is in the call's, since it is waited for
        if seen and seen[-1] == "call":
            now[0] += next(lasts)
        seen.append("wait")

    warm_up, seconds = timed(call, warm_up=2, calls=3, wait=wait, clock=clock)
    assert warm_up == (8.0, 2.0) and seconds == (0.5, 0.25, 1.0)
    assert seen == ["wait", "clock", "call", "wait", "clock"] * 5


def test_median_and_quartiles_by_hand() -> None:
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    found = spread((0.1, 0.2, 0.4, 0.3))  # between the calls: 0.1 + 0.75 x 0.1, and 0.3 + 0.25 x 0.1
    assert (found.low, found.median, found.high) == pytest.approx((0.175, 0.25, 0.325))


def test_lines_for_people() -> None:
    first, second, third = use_lines(USE)
    assert first == "step 7: 1.50 M parameters, weights 6.0 MiB, checkpoint 18.0 MiB on disk"
    assert second == "on a processor, 2 CPU thread(s), 32-true, PyTorch 2.14.0"
    assert third == (
        "batch 4 of 32 x 48 and 1 more pixels: 250.00 ms a call (middle half 175.00 to 325.00 of 4 calls, after 1 of "
        "warm-up), 16.0 images/s; memory 1.0 MiB before, not known at most"
    )


def test_a_later_measurement_of_the_same_takes_the_place() -> None:
    again = replace(USE, step=9)
    other = replace(USE, conditions=replace(ON, threads=1))
    assert with_use((), USE) == (USE,)
    assert with_use((USE, other), again) == (other, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": [0.1, 0.2]}, "2 timed calls and 1 before them: there are at least 3 and 1"),
        ({"warm_up_seconds": []}, "4 timed calls and 0 before them"),
        ({"seconds": [0.1, 0.2, 0.0]}, "calls of no time"),
        ({"peak_bytes": 0}, "memory of no bytes; what is not known is null"),
        ({"batch": 0}, "a batch of 0 images"),
    ],
)
def test_what_no_measurement_gives_is_refused(change: dict[str, object], message: str) -> None:
    from files.typed import from_json

    values = json.loads(json.dumps(BATCH.__dict__))
    assert from_json(BatchUse, values) == BATCH
    with pytest.raises(ValueError, match=message):
        from_json(BatchUse, values | change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, "--batch 0: it must be 1 or more"),
        ({"calls": 2}, "--calls 2: it must be 3 or more"),
        ({"warm_up": 0}, "--warm-up 0: it must be 1 or more"),
        ({"threads": 0}, "--threads 0: it must be 1 or more"),
    ],
)
def test_numbers_that_measure_nothing(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wanted(**values)


MEMORY_OF_CALLS = """
import torch
from engine.runs.use import Meter
size = 64 * 2**20
big = torch.ones(2 * size, dtype=torch.uint8)  # the peak of before
del big
meter = Meter(torch.device("cpu"))
block = torch.ones(size, dtype=torch.uint8)
del block
peak = meter.peak()
print("unknown" if meter.held is None or peak is None else (peak - meter.held) / size)
"""


def test_memory_of_a_cpu_is_that_of_the_calls() -> None:
    """In a process of its own: in one that has freed much, a tensor takes no page that was not there."""
    command = [sys.executable, "-c", MEMORY_OF_CALLS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    if said == "unknown":
        pytest.skip("this kernel does not start the peak of a process anew (/proc/self/clear_refs)")
    assert 0.9 < float(said) < 1.5


def test_memory_that_is_not_known_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "Path", lambda _: tmp_path / "none" / "there")
    meter = Meter(torch.device("cpu"))
    assert meter.held is None and meter.peak() is None


@pytest.fixture(scope="module")
def run(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of the smallest classifier."""
    out = tmp_path_factory.mktemp("use") / "cls"
    flags = ["--steps", "1", "--batch-size", "4", "--out", str(out)]
    assert train_cls.main(["tiny", "--data", str(few_scenes.root / "imagenet"), *flags]) == 0
    return out


def _images(scenes: ScenesIndex) -> str:
    return str(scenes.root / "imagenet" / "val")


def test_a_real_run(run: Path, few_scenes: ScenesIndex, capsys: pytest.CaptureFixture[str]) -> None:
    before, threads = read_record(run), torch.get_num_threads()
    flags = ["--batch", "3", "--calls", "4", "--warm-up", "2", "--threads", "1", "--device", "cpu"]
    assert measure_cost.main([str(run), _images(few_scenes), *flags]) == 0
    said = capsys.readouterr().out
    record = read_record(run)
    assert replace(record, use=()) == before  # nothing else of the record has changed
    (use,) = record.use
    assert [each.batch for each in use.batches] == [1, 3]
    assert all(len(each.seconds) == 4 and len(each.warm_up_seconds) == 2 for each in use.batches)
    assert all(each.sizes == (tuple(before.config["backbone"]["image_size"]),) for each in use.batches)
    assert use.conditions.threads == 1 and use.conditions.precision in ("32-true", "bf16-mixed")
    assert "threads" not in use.conditions.device and before.device.startswith(use.conditions.device)
    assert use.parameters == before.cost.parameters and use.step == 1 and use.images == 3
    assert 4 * use.parameters <= use.weights_bytes < use.checkpoint_bytes
    assert torch.get_num_threads() == threads
    assert "images/s" in said and "of warm-up" in said

    assert measure_cost.main([str(run), _images(few_scenes), *flags]) == 0  # the same again
    assert len(read_record(run).use) == 1
    assert measure_cost.main([str(run), _images(few_scenes), *flags, "--batch", "2"]) == 0  # another batch
    assert [use.batches[-1].batch for use in read_record(run).use] == [3, 2]
    assert evaluate.main([str(run), "--device", "cpu"]) == 0  # the record is still one that is opened


def test_few_images_are_taken_again(run: Path, few_scenes: ScenesIndex, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(sorted(Path(_images(few_scenes)).rglob("*.*"))[0])
    assert measure_cost.main([str(run), image, "--batch", "2", "--calls", "3", "--warm-up", "1"]) == 0
    assert "note: 1 image(s) for a batch of 2: they are taken again" in capsys.readouterr().out


def test_runs_that_are_not_measured(
    run: Path, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(run):
        assert measure_cost.main([str(run), _images(few_scenes)]) == 1
    assert str(run) in capsys.readouterr().err and read_record(run).use != ()
    record = read_record(run)
    write_record(tmp_path, replace(record, status="interrupted"))
    assert measure_cost.main([str(tmp_path), _images(few_scenes)]) == 1
    assert "a run that is interrupted at step 1 of 1; the cost of use is measured once" in capsys.readouterr().err
    assert measure_cost.main([str(run), str(tmp_path / "none.png")]) == 1
    assert "none.png: no such image" in capsys.readouterr().err


@pytest.mark.slow
def test_detection_and_segmentation(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, data in ((train_det.main, few_scenes.coco), (train_seg.main, few_scenes.ade20k)):
        out = tmp_path / data.name
        assert main(["tiny", "--data", str(data), "--steps", "1", "--batch-size", "4", "--out", str(out)]) == 0
        images = sorted(path for path in data.rglob("*.jpg") if "val" in str(path.relative_to(data)))[:2]
        flags = ["--batch", "2", "--calls", "3", "--warm-up", "1"]
        assert measure_cost.main([str(out), *map(str, images), *flags]) == 0
        (use,) = read_record(out).use
        assert [each.batch for each in use.batches] == [1, 2] and use.images == 2
        assert all(min(each.seconds) > 0 for each in use.batches)
    assert "images/s" in capsys.readouterr().out
