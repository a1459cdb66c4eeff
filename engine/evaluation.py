"""Evaluating a task on its validation images, over all processes."""

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from engine.config import RunConfig
from engine.data import Shard, eval_batches
from engine.processes import from_each
from engine.seeding import derive, seed_all
from engine.task import ImageResult, Task
from files.parsing import parse_json
from files.writing import replacing

RESULTS_NAME = "results.jsonl"


@dataclass(frozen=True)
class Evaluated:
    """Metrics of the whole validation split and one result per readable image, in the data set's order."""

    metrics: dict[str, float]
    results: tuple[ImageResult, ...]
    unreadable: dict[str, str]
    """path -> reason"""


@dataclass(frozen=True)
class ResultsFile:
    """The file of per-image results, as a record names it."""

    name: str
    sha256: str


def evaluate(
    task: Task,
    run: RunConfig,
    fabric: Fabric,
    *,
    stop: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Evaluated | None:
    """Return the evaluation of `task.model` as it is, or None where `stop` said so between two batches.

    The model is put in eval mode and back. Every process gets the whole result. `progress` is told how many of how many
    images of this process are done.
    """
    if fabric.world_size > 1:
        for buffer in task.model.buffers():  # running statistics of batch norm differ between processes
            dist.broadcast(buffer, 0)
    training = task.model.training
    task.model.eval()
    shard = Shard(fabric.global_rank, fabric.world_size)
    batches = eval_batches(task, seed=run.seed, batch_size=run.eval_batch_size, shard=shard, workers=run.workers)
    mine = len(range(shard.rank, len(task.val_data), shard.world))
    results: list[ImageResult] = []
    unreadable: dict[str, str] = {}
    progress(0, mine)
    with closing(batches), torch.no_grad(), fabric.autocast():
        for number, batch in enumerate(batches):
            if fabric.world_size == 1 and stop():  # with more processes a lone stop would leave the others waiting
                task.model.train(training)
                return None
            unreadable |= {error.path: error.reason for error in batch.unreadable}
            if batch.data is None:
                continue
            seed_all(derive(run.seed, "evaluate", number))
            predicted = task.predict(fabric.to_device(batch.data))
            if len(predicted) != len(batch.ids):
                raise AssertionError(f"{task.name}: {len(predicted)} results for {len(batch.ids)} images")
            results += predicted
            progress(len(results), mine)
    task.model.train(training)
    parts = from_each(fabric, (results, unreadable))
    results = _interleave([part for part, _ in parts])
    unreadable = {path: reason for _, part in parts for path, reason in part.items()}
    return Evaluated(metrics=task.score(results), results=tuple(results), unreadable=unreadable)


def write_results(folder: Path, results: tuple[ImageResult, ...]) -> ResultsFile:
    """Write one JSON line per image, `{"image_id": ..., ...}`, atomically and return what a record says of the file."""
    digest = hashlib.sha256()
    with replacing(folder / RESULTS_NAME) as temporary, temporary.open("wb") as file:
        for result in results:
            line = json.dumps({"image_id": result.image_id, **result.values}).encode() + b"\n"
            digest.update(line)
            file.write(line)
    return ResultsFile(RESULTS_NAME, digest.hexdigest())


def read_results(path: Path, *, sha256: str | None = None) -> list[ImageResult]:
    """Return what `write_results` wrote; `sha256` is what the record says of the file, None where it says nothing.

    Raises OSError, and ValueError that names the file where it is another than the record's, or no results file.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{path}: is not the file that its record speaks of (sha256 {sha256[:12]}...); it is damaged, or was "
            "replaced. Restore it from a copy, or make it again by --resume."
        )
    results = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        line = parse_json(text, f"{path}: line {number}", surrogates=True)
        if not isinstance(line, dict) or not isinstance(line.get("image_id"), str):
            raise ValueError(f"{path}: line {number} is no result of an image: it has no image_id that is a string.")
        results.append(ImageResult(line.pop("image_id"), line))
    return results


def _interleave(parts: list[list[ImageResult]]) -> list[ImageResult]:
    """Undo the sharding `rank::world`, so that the order is the data set's."""
    longest = max(len(part) for part in parts)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]
