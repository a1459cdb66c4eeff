"""Evaluating a finished or interrupted run again: its last checkpoint, on its own or another split."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import RunConfig, differences
from engine.device import make_fabric
from engine.drawing import drawn
from engine.evaluation import evaluate, write_results
from engine.image_file import allow_megapixels
from engine.log import evaluation_lines
from engine.record import RunRecord, read_record
from engine.resume import checkpoints, load_model
from engine.task import InitialWeights, Task
from files.typed import from_json
from files.writing import replacing


@dataclass(frozen=True)
class Buildable:
    """How a task is made again from its record."""

    config: type[Any]
    build: Callable[..., Task]


@dataclass(frozen=True)
class Rebuilt:
    """The task of a run as it was trained, its weights not yet those of the checkpoint."""

    task: Task
    run: RunConfig
    checkpoint: Path
    """The last one."""


@dataclass(frozen=True)
class Reevaluation:
    """What came out, and where it lies."""

    metrics: dict[str, float]
    step: int
    folder: Path
    pictures: tuple[Path, ...]
    warnings: tuple[str, ...]


def reevaluate(run: Path, tasks: dict[str, Buildable], *, data: Path | None, split: str | None) -> Reevaluation:
    """Evaluate the last checkpoint of the run in folder `run` and write `run/evaluations/<split>/`.

    Raises as `rebuild`.
    """
    rebuilt = rebuild(run, tasks, data=data, split=split)
    task = rebuilt.task
    fabric = make_fabric(rebuilt.run.precision)
    step = load_model(rebuilt.checkpoint, task.model)
    task.model.to(fabric.device)
    evaluated = evaluate(task, rebuilt.run, fabric, stop=lambda: False, progress=evaluation_lines(task.name, print))
    if evaluated is None:
        raise AssertionError("nothing asked the evaluation to stop")
    folder = run / "evaluations" / task.facts.val_split
    with replacing(folder / "metrics.json") as temporary:
        values = {"step": step, "metrics": evaluated.metrics, "unreadable": evaluated.unreadable}
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    write_results(folder, evaluated.results)
    warnings: list[str] = []
    pictures = drawn("pictures", lambda: task.draw(evaluated.results, folder / "pictures"), warnings.append)
    return Reevaluation(evaluated.metrics, step, folder, tuple(pictures), tuple(warnings))


def rebuild(run: Path, tasks: dict[str, Buildable], *, data: Path | None, split: str | None) -> Rebuilt:
    """Return the task of the run in folder `run`, on its own data or `data`, with its own validation split or `split`.

    Raises ValueError or FileNotFoundError where the folder holds no record or no checkpoint, or where the weights that
    the run started from are gone (they state the normalisation of the pixels).
    """
    record = read_record(run)
    if record.task not in tasks:
        raise ValueError(f"{run}: a run of task {record.task!r}; known are {', '.join(sorted(tasks))}.")
    saved = checkpoints(run)
    if not saved:
        raise FileNotFoundError(
            f"{run}: holds no checkpoint to evaluate (status {record.status}, step {record.steps})."
        )
    config = from_json(tasks[record.task].config, record.config)
    allow_megapixels(config.run.max_megapixels, at_least=True)
    if split is not None:
        if not hasattr(config, "val_split"):
            raise ValueError(f"--split: the validation split of {record.task} is fixed ({record.val_split}).")
        config = replace(config, val_split=split)
        if hasattr(config, "val_json"):  # it named the annotations of the run's own split
            config = replace(config, val_json=None)
    if data is not None and hasattr(config, "train_split"):  # other images may have no training split; none is needed
        config = replace(config, train_split=split or record.val_split)
        if hasattr(config, "train_json"):
            config = replace(config, train_json=config.val_json)
    task = tasks[record.task].build(config, data=data or Path(record.data), init=_initial_weights(record))
    classes = json.loads(json.dumps(task.facts.extra))  # as the record holds them
    if classes != record.extra:
        raise ValueError(
            f"{task.facts.data}: its classes are not those that {run} was trained on: "
            f"{'; '.join(differences(record.extra, classes))}."
        )
    return Rebuilt(task, config.run, saved[-1])


def _initial_weights(record: RunRecord) -> InitialWeights | None:
    if record.weights_path is None:
        return None
    path = Path(record.weights_path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: the weights that the run started from are gone; their header states the normalisation of the "
            f"pixels. Put back the file of sha256 {record.weights_sha256}."
        )
    return InitialWeights(path=path, **record.weights_options)
