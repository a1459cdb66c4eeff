"""Evaluating a finished or interrupted run again: its last checkpoint, on its own or another split."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lightning_fabric import Fabric

from backbones.weights.declaration import TrustPickle
from engine.config import Precision, RunConfig, differences
from engine.device import determined, make_fabric
from engine.drawing import drawn
from engine.records.metrics_file import CSV_NAME
from engine.records.record import IDENTITY_NAME, RECORD_NAME, WEIGHTS_NAME, RunRecord
from engine.records.results_file import RESULTS_NAME, write_results
from engine.runs.recorded import read_run
from engine.spec import TaskTable
from engine.task import Task
from engine.training.evaluation import evaluate
from engine.training.log import evaluation_lines
from engine.training.resume import checkpoints, load_model
from files.naming import distinct_stems, inside
from files.writing import replacing

UNUSED = ("label_fraction", "train_list", "probe_data")  # fields of what an evaluation again does not look at


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of a run that is opened again."""

    data: Path | None = None
    """Folder of the data set; the run's own unless given."""
    split: str | None = None
    """Validation split; the run's own unless given."""
    device: str = "auto"
    """Where it is computed, as RunConfig.device; the run's own is not asked, which may have been of another machine."""
    trust_pickle: TrustPickle = False
    """Of a run's tokenizer, and of what a run of before started from, whose record lacks the normalisation."""


@dataclass(frozen=True)
class Rebuilt:
    """The task of a run as it was trained, its weights not yet those of the checkpoint."""

    task: Task
    run: RunConfig
    checkpoint: Path
    """The last one."""
    device: str
    """Where it is to be computed."""
    precision: Precision
    """What the run was trained in (Recorded.precision)."""

    def fabric(self) -> Fabric:
        """Return a launched Fabric with that precision."""
        return make_fabric(self.precision, device=self.device)


@dataclass(frozen=True)
class Reevaluation:
    """What came out, and where it lies."""

    metrics: dict[str, float]
    step: int
    folder: Path
    pictures: tuple[Path, ...]
    warnings: tuple[str, ...]


def reevaluate(run: Path, tasks: TaskTable, asked: Asked, *, say: Callable[[str], None]) -> Reevaluation:
    """Evaluate the last checkpoint of the run in folder `run` and write `run/evaluations/<split>/`.

    Raises as `rebuild`.
    """
    rebuilt = rebuild(run, tasks, asked, say=say)
    task = rebuilt.task
    folder = _evaluation_folder(run, task.facts.val_split)
    fabric = rebuilt.fabric()
    step = load_model(rebuilt.checkpoint, task.model)
    task.model.to(fabric.device)
    with determined(rebuilt.run.deterministic):
        evaluated = evaluate(task, rebuilt.run, fabric, stop=lambda: False, progress=evaluation_lines(task.name, say))
    if evaluated is None:
        raise AssertionError("nothing asked the evaluation to stop")
    with replacing(folder / "metrics.json") as temporary:
        values = {"step": step, "metrics": evaluated.metrics, "unreadable": evaluated.unreadable}
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    write_results(folder, evaluated.results)
    warnings: list[str] = []
    pictures = drawn("pictures", lambda: task.draw(evaluated.results, folder / "pictures"), warnings.append)
    return Reevaluation(evaluated.metrics, step, folder, tuple(pictures), tuple(warnings))


def rebuild(run: Path, tasks: TaskTable, asked: Asked, *, say: Callable[[str], None]) -> Rebuilt:
    """Return the task of the run in folder `run`, on its own data and validation split or those that are asked for.

    What is read as the record says alone is said. What only looks at images needs no data: engine.runs.trained.

    The weights that the run started from are not read where the record states what pixels are normalised with; a
    checkpoint of the run takes their place.

    Raises as `read_run`, and ValueError or FileNotFoundError for a record without the normalisation where the weights
    that the run started from are gone or are others now, and for data of other classes.
    """
    recorded = read_run(run, tasks, device=asked.device)
    record, spec, config, source = recorded.record, recorded.spec, recorded.config, recorded.source
    init = recorded.initial_weights(trust_pickle=asked.trust_pickle)
    if getattr(config, "resume_from", None) is not None:  # the run has its own checkpoints now
        config = replace(config, resume_from=None)
    config = _on(config, record, asked)
    data = asked.data or Path(record.data)
    if "\0" in f"{data}{record.val_split}":
        raise ValueError(f"{source}: the path of the data or the name of a split holds a zero byte.")
    if asked.data is None:
        say(f"data: {record.data}, as the record says (--data gives another folder)")
    if init is not None and init.normalisation is None:
        say(f"weights: {init.path}, as the record says")
    for line in named_files(config):
        say(line)
    trust = {"trust_tokenizer": asked.trust_pickle} if spec.reads_tokenizer else {}
    stated = {name: record.extra[name] for name in spec.stated if isinstance(record.extra.get(name), bool)}
    task = spec.build(config, data=data, init=init, **trust, **stated)
    classes = json.loads(json.dumps(task.facts.extra))  # as the record holds them
    if classes != record.extra:
        raise ValueError(
            f"{task.facts.data}: its classes are not those that {source} names as trained on: "
            f"{'; '.join(differences(record.extra, classes))}."
        )
    precision = recorded.precision(asked.device, say)
    return Rebuilt(task, config.run, recorded.checkpoint, asked.device, precision)


def files_of(run: Path) -> list[Path]:
    """Return the files that a run consists of, which no other tool may write over."""
    names = (RECORD_NAME, IDENTITY_NAME, WEIGHTS_NAME, CSV_NAME, RESULTS_NAME)
    return [*(run / name for name in names), *checkpoints(run), *run.glob("*.safetensors")]


def _on(config: Any, record: RunRecord, asked: Asked) -> Any:
    """Return the configuration with the split and the data that are asked for."""
    split = asked.split
    if split is not None:
        if not hasattr(config, "val_split"):
            raise ValueError(f"--split: the validation split of {record.task} is fixed ({record.val_split}).")
        config = replace(config, val_split=split)
        if hasattr(config, "val_json"):  # it named the annotations of the run's own split
            config = replace(config, val_json=None)
    # there may be no training images any more; none are needed
    seen = {"train_split": split or record.val_split, "train_json": getattr(config, "val_json", None)}
    changes = {**seen, **dict.fromkeys(UNUSED)}
    return replace(config, **{name: value for name, value in changes.items() if hasattr(config, name)})


def named_files(config: Any) -> list[str]:
    """Return a line for every file beside the data that is read because the record's configuration names it."""
    named = {name: getattr(config, name, None) for name in ("val_json", "tokenizer")}
    return [f"{name}: {path}, as the record says" for name, path in named.items() if path is not None]


def _evaluation_folder(run: Path, split: str) -> Path:
    """Return where an evaluation is written, inside the run's folder whatever the split is called."""
    plain = PurePosixPath(split)
    name = split
    if plain.is_absolute() or ".." in plain.parts:  # a split beside the data's folder
        name = distinct_stems([split], [split], endings=("",))[0]
    folder = f"evaluations/{name}"
    for part in (f"{folder}/pictures", folder):
        path = inside(run, part, source=run / RECORD_NAME)
    return path
