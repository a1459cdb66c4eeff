"""A run's weights as a folder that a hub takes, with timm's config.json where timm has the ViT, and a model card."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backbones.weights.convert import timm_refuses, write_as, written
from backbones.weights.declaration import BACKBONE_NAME, InitialWeights
from backbones.weights.inspect import named
from backbones.weights.read import read_checkpoint
from engine.records.own_files import own_file
from engine.records.record import IDENTITY_NAME, RECORD_NAME, RunRecord, read_record
from engine.runs.card import Files, card, check_licence
from engine.spec import TaskTable, check_metrics
from files.naming import refuse_overwriting
from files.writing import replacing

CARD = "README.md"
TIMM_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was written."""

    files: tuple[Path, ...]
    timm: bool
    """Whether timm opens it."""
    lines: tuple[str, ...]
    """For people."""


def completed(run: Path, tasks: TaskTable) -> RunRecord:
    """Return the record of a completed run. Raises ValueError for another, and for a task that is none of `tasks`."""
    record = read_record(run)
    if record.task not in tasks:
        raise ValueError(f"{run}: of the task {record.task!r}, which is none of {', '.join(tasks)}.")
    check_metrics(run, record, tasks)
    if record.status != "completed":
        raise ValueError(
            f"{run}: the run is {record.status}, at step {record.steps} of {record.total_steps}; finish it."
        )
    return record


def write_folder(
    run: Path, tasks: TaskTable, *, out: Path, licence: str, name: str | None = None, others: Sequence[RunRecord] = ()
) -> Folder:
    """Write the folder of a completed run; `name` is OWNER/NAME of the model where it has one.

    `others` are the records of the same run with other seeds, over which the card states an interval.

    Raises ValueError for a run that is not completed, left no weights or whose weights are not those of its record, for
    a licence that is none, and where `out` holds a file of these names that says otherwise. Nothing is written then.
    """
    check_licence(licence)
    record = completed(run, tasks)
    weights = own_file(run, record, BACKBONE_NAME)
    if weights is None:
        raise ValueError(f"{run}: it left no {BACKBONE_NAME}; a run that trains a ViT does.")
    checkpoint = read_checkpoint(InitialWeights(path=weights))
    why_not = timm_refuses(checkpoint)
    target = "timm" if why_not is None else "own"
    path = out / (TIMM_WEIGHTS if why_not is None else BACKBONE_NAME)
    files = (*written(target, path), out / CARD)
    refuse_overwriting(files, [weights, run / RECORD_NAME, run / IDENTITY_NAME])
    unnamed = f"OWNER/{run.resolve().name}"
    said = Files(name=unnamed, architecture=named(checkpoint.architecture), timm=why_not is None, why_not=why_not)
    draft = card(record, tasks[record.task], said, licence=licence, others=others)
    text = card(record, tasks[record.task], replace(said, name=name or unnamed), licence=licence, others=others)
    if (out / CARD).exists() and (out / CARD).read_bytes() not in (draft.encode(), text.encode()):
        raise ValueError(f"{out / CARD}: is there already and says otherwise; give another --out, or move it away.")
    out.mkdir(parents=True, exist_ok=True)
    lines = write_as(checkpoint, target, path)
    with replacing(out / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if why_not is not None:
        lines = [*lines, f"in the format of this project: timm has no such model ({why_not})"]
    return Folder(files=files, timm=why_not is None, lines=tuple(lines))
