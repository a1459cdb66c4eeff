"""Evaluating a task on its validation images, over all processes."""

import math
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from engine.config import RunConfig
from engine.device import timed_convolutions
from engine.records.results_file import ImageResult
from engine.task import ProbesFeatures, Task
from engine.training.ahead import on_device
from engine.training.data import Shard, eval_batches, loading_for
from engine.training.processes import from_each, from_first, on_any
from engine.training.seeding import derive, seed_all

ASKED_EVERY = 10  # batches, whether one of several processes is to stop


@dataclass(frozen=True)
class Evaluated:
    """Metrics of the whole validation split and one result per readable image, in the data set's order."""

    metrics: dict[str, float]
    results: tuple[ImageResult, ...]
    unreadable: dict[str, str]
    """path -> reason"""


def evaluate(
    task: Task,
    run: RunConfig,
    fabric: Fabric,
    *,
    stop: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Evaluated | None:
    """Return the evaluation of `task.model` as it is, or None where `stop` said so between two batches, on any process.

    The model is put in eval mode and back. Every process gets the whole result, with what the first finds of a probe of
    the features where the task has one. `progress` is told how many of how many
    images of this process are done.
    """
    if fabric.world_size > 1:
        for buffer in task.model.buffers():  # running statistics of batch norm differ between processes
            dist.broadcast(buffer, 0)
    training, probe = task.model.training, task.probe if isinstance(task, ProbesFeatures) else None
    task.model.eval()
    shard = Shard(fabric.global_rank, fabric.world_size)
    loaded = eval_batches(
        task.val_data,
        task.collate,
        seed=run.seed,
        batch_size=run.eval_batch_size,
        shard=shard,
        loading=loading_for(run.workers, fabric.device),
    )
    batches = on_device(loaded, fabric)
    mine = len(range(shard.rank, len(task.val_data), shard.world))
    fewest = math.ceil(len(task.val_data) // shard.world / run.eval_batch_size)
    results: list[tuple[int, ImageResult]] = []
    unreadable: dict[str, str] = {}
    progress(0, mine)
    with closing(batches), torch.no_grad(), fabric.autocast(), timed_convolutions(False):
        for number, batch in enumerate(batches):
            # all ask alike, the last time before any of them has seen its last batch
            if (
                number < fewest
                and number % (ASKED_EVERY if fabric.world_size > 1 else 1) == 0
                and on_any(fabric, stop())
            ):
                task.model.train(training)
                return None
            unreadable |= {error.path: error.reason for error in batch.unreadable}
            if batch.data is None:
                continue
            seed_all(derive(run.seed, "evaluate", number))
            predicted = task.predict(batch.data)
            if len(predicted) != len(batch.ids):
                raise AssertionError(f"{task.name}: {len(predicted)} results for {len(batch.ids)} images")
            results += zip(batch.places, predicted, strict=True)
            progress(len(results), mine)
    task.model.train(training)
    parts = from_each(fabric, (results, unreadable))
    ordered = in_order([part for part, _ in parts])
    unreadable = {path: reason for _, part in parts for path, reason in part.items()}
    metrics = from_first(fabric, lambda: task.score(ordered) | (probe(fabric) if probe else {}))
    return Evaluated(metrics=metrics, results=ordered, unreadable=unreadable)


def in_order(parts: Iterable[Iterable[tuple[int, ImageResult]]]) -> tuple[ImageResult, ...]:
    """Return the results of all processes by their images' places in the data set, which are given with them.

    An unreadable image has no result, so that the processes may have unequal numbers of them.
    """
    return tuple(result for _, result in sorted(chain.from_iterable(parts), key=lambda placed: placed[0]))
