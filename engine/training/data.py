"""Which image is seen when, and how a batch is made: the same for every task and every number of loader processes.

The data order is one endless stream: position p is image `permutation(p // size)[p % size]`, with one permutation per
epoch. Optimiser step s takes positions s * batch ... (s + 1) * batch - 1, so a run resumed at step s needs no state.
Augmentation of the sample at position p draws from generators seeded by p alone.
"""

import functools
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data._utils.pin_memory import pin_memory

from engine.config import Workers
from engine.images.reading import UnreadableImageError
from engine.task import ImageData, Task
from engine.training.seeding import derive, seeded

MOST_TRIES = 50  # replacements for one unreadable image before giving up
MOST_WORKERS = 16  # of a device that chooses their number by itself


@dataclass(frozen=True)
class Batch:
    """A collated batch, the ids of its images, and what could not be read on the way to it."""

    data: Any
    ids: tuple[str, ...]
    unreadable: tuple[UnreadableImageError, ...]
    places: tuple[int, ...]
    """Where each image stands: in the data set for evaluation, in the data order for training."""

    def pin_memory(self) -> "Batch":
        """Return the batch in memory that a GPU copies from by itself; the loader asks for it."""
        return replace(self, data=pin_memory(self.data))


@dataclass(frozen=True)
class Loading:
    """How batches are made."""

    workers: int = 0
    """Processes that load; 0 loads in the process that asks."""
    pinned: bool = False
    """Whether in memory that a GPU copies from by itself."""


def loading_for(workers: Workers, device: torch.device) -> Loading:
    """Return how a run on `device` loads.

    `auto` workers are none on a CPU, which they would take from training, and for a GPU the cores that this process may
    use, shared with the other processes of torchrun on this machine, but for one, and MOST_WORKERS at most.
    """
    on_gpu = device.type == "cuda"
    count = workers if workers != "auto" else 0
    if workers == "auto" and on_gpu:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        count = min(MOST_WORKERS, max(1, share - 1))
    return Loading(workers=count, pinned=on_gpu and torch.cuda.is_available())


@dataclass(frozen=True)
class Shard:
    """Which part of every step this process takes."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def positions(self, step: int, batch_size: int) -> list[list[int]]:
        """Return this rank's positions in the data order for one step, one list per micro-batch."""
        share, rest = divmod(batch_size, self.world * self.accumulate)
        if rest or not share:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {self.world} processes with {self.accumulate} "
                f"micro-batches each; make it a multiple of {self.world * self.accumulate}."
            )
        starts = [step * batch_size + (m * self.world + self.rank) * share for m in range(self.accumulate)]
        return [list(range(start, start + share)) for start in starts]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, "order", epoch)).permutation(size)


def image_at(position: int, *, seed: int, size: int) -> int:
    """Return the index of the image at a position of the data order."""
    epoch, offset = divmod(position, size)
    return int(_permutation(seed, epoch, size)[offset])


@dataclass(frozen=True)
class _Drawn:
    sample: Any
    image_id: str
    unreadable: tuple[UnreadableImageError, ...]
    place: int


class _TrainSamples(Dataset[_Drawn]):
    """Samples by position. An unreadable image is replaced by the one that follows it in the order."""

    def __init__(self, data: ImageData, seed: int) -> None:
        self.data = data
        self.seed = seed

    def __getitem__(self, position: int) -> _Drawn:
        size = len(self.data)
        unreadable: list[UnreadableImageError] = []
        with seeded(derive(self.seed, "sample", position)):
            for step in range(MOST_TRIES):
                index = image_at(position + step, seed=self.seed, size=size)
                try:
                    return _Drawn(self.data[index], self.data.image_id(index), tuple(unreadable), position)
                except UnreadableImageError as error:
                    unreadable.append(error)
        raise ValueError(f"{len(unreadable)} images in a row cannot be read; the last: {unreadable[-1]}")


class _EvalSamples(Dataset[_Drawn]):
    """Samples by index. An unreadable image yields no sample."""

    def __init__(self, data: ImageData, seed: int) -> None:
        self.data = data
        self.seed = seed

    def __getitem__(self, index: int) -> _Drawn:
        with seeded(derive(self.seed, "evaluate", index)):
            try:
                return _Drawn(self.data[index], self.data.image_id(index), (), index)
            except UnreadableImageError as error:
                return _Drawn(None, self.data.image_id(index), (error,), index)


class _Positions(Sampler[list[int]]):
    """Lists of positions, made as they are asked for: a long run has too many to hold."""

    def __init__(self, steps: range, batch_size: int, shard: Shard) -> None:
        shard.positions(0, batch_size)  # refuse a batch that cannot be shared before any worker starts
        self.steps = steps
        self.batch_size = batch_size
        self.shard = shard

    def __iter__(self) -> Iterator[list[int]]:
        return (p for step in self.steps for p in self.shard.positions(step, self.batch_size))

    def __len__(self) -> int:
        return len(self.steps) * self.shard.accumulate


class _Collate:
    """A picklable wrapper of the task's collate that keeps ids and errors."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, drawn: list[_Drawn]) -> Batch:
        readable = [d for d in drawn if d.sample is not None]
        return Batch(
            data=self.collate([d.sample for d in readable]) if readable else None,
            ids=tuple(d.image_id for d in readable),
            unreadable=tuple(error for d in drawn for error in d.unreadable),
            places=tuple(d.place for d in readable),
        )


def add_unreadable(known: dict[str, str], found: dict[str, str], *, limit: int, say: Callable[[str], None]) -> None:
    """Add unreadable images to those that are known, path -> reason, and say each. Raises ValueError above `limit`."""
    for path, reason in found.items():
        if path not in known:
            known[path] = reason
            say(f"warning: {path}: unreadable image ({reason}); left out, {len(known)} so far.")
    if len(known) > limit:
        raise ValueError(
            f"{len(known)} images cannot be read, more than max_unreadable = {limit}; the last: "
            f"{next(reversed(known))}. "
            "Mend or remove them, or raise the limit by --max-unreadable (with --resume the run goes on from its last "
            "checkpoint)."
        )


def check_readable(task: Task, *, seed: int, most: int, loading: Loading) -> None:
    """Raise ValueError where none of the images of a split can be read, or none of the first `most` + 1 that are drawn.

    `most` is what the run bears (max_unreadable): it would stop at these images, of validation after training alone.
    Nothing is read beyond the first image that can be.
    """
    facts, train, val = task.facts, task.train_data, task.val_data
    drawn = [image_at(position, seed=seed, size=len(train)) for position in range(min(len(train), most + 1))]
    for kind, split, data, indices in (
        ("training", facts.train_split, train, drawn),
        ("validation", facts.val_split, val, [*range(min(len(val), most + 1))]),
    ):
        if not indices:
            raise ValueError(f"{facts.data}: the {kind} split {split} holds no image.")
        unreadable: list[UnreadableImageError] = []
        one = Loading(workers=min(loading.workers, 1))
        one_by_one = _loader(_EvalSamples(data, seed), [[index] for index in indices], list, one)
        with closing(_stream(one_by_one)) as batches:
            for batch in batches:
                if batch.ids:
                    break
                unreadable += batch.unreadable
        if len(unreadable) == len(indices):
            raise ValueError(_none_readable(facts.data, split, unreadable, of=len(data)))


def _none_readable(data: str, split: str, unreadable: Sequence[UnreadableImageError], *, of: int) -> str:
    count = len(unreadable)
    if count == of:
        return f"{data}: none of the {of} image(s) of split {split} can be read; the first: {unreadable[0]}"
    return (
        f"{data}: of split {split} the first {count} images of {of} cannot be read, more than max_unreadable = "
        f"{count - 1}; the first: {unreadable[0]} Mend or remove them, or raise the limit by --max-unreadable."
    )


def train_batches(
    task: Task, *, seed: int, steps: range, batch_size: int, shard: Shard, loading: Loading
) -> Generator[Batch]:
    """Return this rank's micro-batches for every step of `steps`, in order; to close it ends its processes."""
    positions = _Positions(steps, batch_size, shard)
    return _stream(_loader(_TrainSamples(task.train_data, seed), positions, task.collate, loading))


def eval_batches(
    data: ImageData,
    collate: Callable[[Sequence[Any]], Any],
    *,
    batch_size: int,
    loading: Loading,
    seed: int = 0,
    shard: Shard | None = None,
) -> Generator[Batch]:
    """Return this rank's share of the images in order, each once; to close it ends its processes."""
    shard = shard or Shard()
    mine = range(shard.rank, len(data), shard.world)
    batches = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return _stream(_loader(_EvalSamples(data, seed), batches, collate, loading))


def _stream(loader: "DataLoader[_Drawn]") -> Generator[Batch]:
    # a loader's processes end with its iterator, which a traceback that someone keeps holds on to; they ignore signals,
    # so Python would wait for them at its exit for ever
    yield from cast(Iterator[Batch], iter(loader))


def _loader(
    samples: Dataset[_Drawn],
    batches: Sampler[list[int]] | list[list[int]],
    collate: Callable[[Sequence[Any]], Any],
    loading: Loading,
) -> DataLoader[_Drawn]:
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=loading.workers,
        pin_memory=loading.pinned,
        collate_fn=_Collate(collate),
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(_: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process, which saves before it stops its loaders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
