"""What a trained model takes when it is used: time, memory and size, measured and kept in the run's record.

A call takes images that are decoded and resized, on the host, and ends with answers on the host: the copy to the
device, the forward pass and what follows it (suppression, masks as run lengths) are in it, reading files is not.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from engine.cost import count_parameters
from engine.device import hardware_name
from engine.records.record import RunRecord, read_record, write_record
from engine.records.recording import precision_name
from engine.records.use import LEAST_CALLS, BatchUse, Conditions, Use, with_use
from engine.runs.trained import On, Opened, open_trained
from engine.spec import TaskTable
from files.digest import file_sha256
from files.locking import locked

PEAK, NOW = "VmHWM", "VmRSS"  # of /proc/self/status, in KiB
RESET_PEAK = "5"  # to /proc/self/clear_refs, proc(5)


@runtime_checkable
class AnswersBatches(Protocol):
    """A trained model that answers several images by one call."""

    model: nn.Module

    def sample(self, path: Path) -> Any:
        """Return an image file as the model takes it, on the host. Raises UnreadableImageError."""

    def size(self, sample: Any) -> tuple[int, int]:
        """Return the height and width in pixels that the model is given of a sample."""

    def answer(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        """Return what the model says of each sample, as plain JSON values; the model is in eval mode."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How it is measured."""

    batch: int = 8
    """Images of a call, beside calls on one image."""
    calls: int = 20
    """Timed ones of each batch."""
    warm_up: int = 5
    """Calls before them, which are kept apart."""
    threads: int | None = None
    """Of operations on the CPU; PyTorch's own choice unless given."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that measure nothing."""
        least = {"batch": 1, "calls": LEAST_CALLS, "warm-up": 1, "threads": 1}
        given = {"batch": self.batch, "calls": self.calls, "warm-up": self.warm_up, "threads": self.threads}
        for name, value in given.items():
            if value is not None and value < least[name]:
                raise ValueError(f"--{name} {value}: it must be {least[name]} or more.")


def measure_use(
    run: Path, tasks: TaskTable, images: Sequence[Path], on: On, *, wanted: Wanted, say: Callable[[str], None]
) -> Use:
    """Measure the last checkpoint of the completed run in folder `run` and add what came out to its record.

    A batch takes the first of `images`, and takes them again where they are too few. Raises as `open_trained`,
    ValueError for a run that is not completed or at work, for a task that answers no batches, and where a batch does
    not fit into the device's memory; UnreadableImageError for an image that cannot be read.
    """
    read_record(run)
    with locked(run) as note:
        if note is not None:
            say(f"warning: {note}")
        record = read_record(run)
        if record.status != "completed":
            raise ValueError(
                f"{run}: a run that is {record.status} at step {record.steps} of {record.total_steps}; the cost of use "
                "is measured once it is completed (--resume)."
            )
        threads = torch.get_num_threads()
        try:
            opened = open_trained(run, tasks, on, say=say)
            torch.set_num_threads(wanted.threads or torch.get_num_threads())
            found = _measured(opened, record, images, wanted, say)
        finally:
            torch.set_num_threads(threads)
        write_record(run, replace(record, use=with_use(record.use, found)))
    return found


def _measured(
    opened: Opened, record: RunRecord, images: Sequence[Path], wanted: Wanted, say: Callable[[str], None]
) -> Use:
    trained, fabric = opened.trained, opened.fabric
    if not isinstance(trained, AnswersBatches):
        source = opened.recorded.source
        raise ValueError(f"{source}: a run of task {record.task!r}, which answers no batches of images.")
    files = list(images)[: wanted.batch]
    if len(files) < wanted.batch:
        say(f"note: {len(files)} image(s) for a batch of {wanted.batch}: they are taken again")
    samples = [trained.sample(path) for path in files]
    batches = []
    with torch.no_grad(), fabric.autocast():
        for batch in dict.fromkeys((1, wanted.batch)):
            given = list(islice(cycle(samples), batch))
            meter = Meter(fabric.device)
            try:
                warm_up, seconds = timed(
                    lambda given=given: trained.answer(given),  # type: ignore[misc]
                    warm_up=wanted.warm_up,
                    calls=wanted.calls,
                    wait=meter.wait,
                )
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"--batch {batch}: more than the memory of {fabric.device} takes ({error})."
                ) from error
            batches.append(
                BatchUse(
                    batch=batch,
                    sizes=tuple(dict.fromkeys(trained.size(sample) for sample in given)),
                    warm_up_seconds=warm_up,
                    seconds=seconds,
                    held_bytes=meter.held,
                    peak_bytes=meter.peak(),
                )
            )
    state = trained.model.state_dict().values()
    digests = "".join(file_sha256(path) for path in files)
    return Use(
        step=opened.step,
        conditions=Conditions(
            device=hardware_name(fabric.device),
            threads=torch.get_num_threads(),
            precision=precision_name(fabric),
            torch=str(torch.__version__),
            images_sha256=hashlib.sha256(digests.encode()).hexdigest(),
        ),
        images=len(files),
        parameters=count_parameters(trained.model),
        weights_bytes=sum(tensor.numel() * tensor.element_size() for tensor in state),
        checkpoint_bytes=opened.recorded.checkpoint.stat().st_size,
        batches=tuple(batches),
        measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def timed(
    call: Callable[[], object],
    *,
    warm_up: int,
    calls: int,
    wait: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the seconds of each of the first `warm_up` calls, and of each of `calls` calls after them.

    `wait` returns when the device has done all that it was given; it stands before the clock is read, both times.
    """
    found = []
    for _ in range(warm_up + calls):
        wait()
        began = clock()
        call()
        wait()
        found.append(clock() - began)
    return tuple(found[:warm_up]), tuple(found[warm_up:])


class Meter:
    """Memory of a device from now on, and a wait for it."""

    def __init__(self, device: torch.device) -> None:
        """Start the peak anew. On a CPU that is the kernel's word on this process, where it can be started anew."""
        self.device = device
        self.wait()
        self.held: int | None = None
        """Bytes now."""
        self._anew = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.held = torch.cuda.memory_allocated(device)
        elif device.type == "cpu":
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text(RESET_PEAK)
                self._anew = True
            self.held = _of_process(NOW)

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def peak(self) -> int | None:
        """Return the most bytes since the start, None where it is not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _of_process(PEAK) if self._anew else None


def _of_process(name: str) -> int | None:
    """Return bytes from the kernel's table of this process, None where there is none."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return None
