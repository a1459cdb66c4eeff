"""Every record below a folder, and what could not be read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.weights.declaration import BACKBONE_NAME
from benchmark.compare.groups import Grouping
from benchmark.compare.lines import Line, arm_of, line_of, made_weights
from benchmark.study.plan import NAME as PLAN_NAME
from benchmark.study.plan import Groups, Plan, Planned, planned_at, read_plans
from benchmark.study.search import LR_FLAG, Choice, read_choice
from benchmark.study.search import NAME as CHOICE_NAME
from engine.records.own_files import damaged_files
from engine.records.record import RECORD_NAME, RunRecord, read_record, standing
from engine.spec import TaskTable, check_metrics
from files.digest import file_sha256
from files.frames import any_text
from files.naming import inside

READ = ("config.json", "metrics.csv", "results.jsonl", "weights.txt", "study.yaml")  # beside records and plans

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A record and where it lies."""

    folder: Path
    record: RunRecord
    arm: str
    """What its weights are called."""
    line: Line | None
    """Where its results stand; None for what is no transfer: pre-training, the search of a learning rate."""
    pretrained: bool = False
    """Whether it is a pre-training that has left weights."""
    choice: Choice | None = None
    """The search that its learning rate is from, where a study has searched it."""
    command: str = ""
    """Repeats the run alone; empty where no study has planned it."""
    checkpoint_sha256: str | None = None
    """Of the backbone that the run left; None where it leaves none."""
    pretrain_seed: int | None = None
    """Of a pre-training that a study repeats, and of the one that a transfer starts from."""
    added: bool = False
    """Whether its study planned it after transfers of other seeds had run."""
    grouping: Grouping | None = None
    """Which of its test images belong together, where its study says so."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """name -> what is wrong, of files beside the record that are not read for that."""

    def file(self, name: str) -> Path | None:
        """Return a file of the run; None where it is not there or is damaged."""
        path = self.folder / name
        return path if name not in self.damaged and path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Store:
    """What was found below a folder."""

    root: Path
    stored: tuple[Stored, ...]
    unreadable: tuple[str, ...]
    """One line per record that could not be read; it begins with the file."""
    unplanned: tuple[str, ...] = ()
    """Folders of records that lie in a study but are none of its runs; they are left out."""
    absent: tuple[Planned, ...] = ()
    """Runs that a study has planned and that left no record."""
    plans: tuple[Plan, ...] = ()
    """Of the studies below the folder; they claim the same."""
    tasks: TaskTable = field(default_factory=dict)
    """What is known of the tasks of the records."""

    @property
    def plan(self) -> Plan:
        """What is claimed and matched: that of the studies, or the usual question where there is none."""
        return self.plans[0] if self.plans else Plan(name=self.root.name)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Learning rates that were searched, each once."""
        return tuple(dict.fromkeys(item.choice for item in self.stored if item.choice is not None))

    @property
    def completed(self) -> tuple[Stored, ...]:
        """Records of runs that came to their end."""
        return tuple(stored for stored in self.stored if stored.record.status == "completed")

    @property
    def incomplete(self) -> tuple[Stored, ...]:
        """Records of runs that failed, were interrupted, or were killed or are still going (`running`)."""
        return tuple(stored for stored in self.stored if stored.record.status != "completed")


def open_store(root: Path, tasks: TaskTable) -> Store:
    """Return the records below `root`, in the order of their folders.

    Raises FileNotFoundError where there is none, ValueError for a plan that cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give one that holds runs.")
    plans = read_plans(root)
    stored, unreadable, unplanned = [], [], []
    absent = {run: None for plan in plans.values() for run in plan.runs if run.phase != "data" and not run.optional}
    for path in sorted(root.rglob(RECORD_NAME)):
        try:
            record = read_record(path)
        except (ValueError, OSError) as error:
            text = str(error)
            unreadable.append(text if text.startswith(str(path)) else f"{path}: {text}")
            continue
        top, planned = planned_at(plans, path.parent)
        if top is not None and planned is None:
            unplanned.append(str(path.parent))
            continue
        if planned is not None:
            absent.pop(planned, None)
        try:
            plan = None if top is None else plans[top]
            stored.append(_stored(path.parent, record, top, planned, tasks, {} if plan is None else plan.groups))
        except (ValueError, OSError) as error:
            unreadable.append(str(error))
    if not stored and not unreadable and unplanned:
        each = ", ".join(str(folder / PLAN_NAME) for folder in plans)
        raise FileNotFoundError(f"{root}: none of its {len(unplanned)} records is of a run that {each} has planned.")
    if not stored and not unreadable:
        raise FileNotFoundError(f"{root}: no {RECORD_NAME} below it; give a folder that holds runs.")
    return Store(
        root=root,
        stored=tuple(stored),
        unreadable=tuple(unreadable),
        unplanned=tuple(unplanned),
        absent=tuple(absent),
        plans=tuple(plans.values()),
        tasks=tasks,
    )


def files_read(store: Store) -> list[Path]:
    """Return the files below a store's folder that an export may read: it must be written over none of them."""
    names = {RECORD_NAME, PLAN_NAME, CHOICE_NAME, *READ}
    found = [path for path in store.root.rglob("*") if path.name in names]
    for item in store.stored:
        found += [item.folder / name for name in (*item.record.pictures, *item.record.outputs)]
        if item.grouping is not None and item.grouping.groups.file is not None:
            found.append(item.grouping.root / item.grouping.groups.file)
    return [*dict.fromkeys(found)]


def frame(stored: Sequence[Stored]) -> "pd.DataFrame":
    """Return one row per record and metric: folder, status, task, recipe, weights (the arm), seed, metric, value.

    A record without metrics has one row whose metric and value are missing.
    """
    import pandas as pd

    rows = []
    for item in stored:
        record = item.record
        head = (str(item.folder), standing(item.folder, record), record.task, record.recipe, item.arm, record.seed)
        metrics: list[tuple[str | None, float]] = [*record.metrics.items()]
        rows += [(*head, name, value) for name, value in metrics or [(None, math.nan)]]
    columns = ["folder", "status", "task", "recipe", "weights", "seed", "metric", "value"]
    with any_text():
        return pd.DataFrame(rows, columns=columns).sort_values(["folder", "metric"], ignore_index=True)


def _stored(
    folder: Path,
    record: RunRecord,
    top: Path | None,
    planned: Planned | None,
    tasks: TaskTable,
    groups: Mapping[str, Groups],
) -> Stored:
    check_metrics(folder, record, tasks)
    grouping = None
    # a short pre-training of a search leaves weights too, which no transfer starts from
    pretrained = made_weights(record, tasks) and (planned is None or planned.phase == "pretrain")
    arm, line, choice = arm_of(record, pretrained=pretrained), line_of(record, tasks), None
    if planned is not None:
        arm = planned.arm or arm
        line = line_of(record, tasks, planned.task) if planned.phase == "transfer" else None
        if top is not None and planned.choice is not None:
            choice = read_choice(inside(top, planned.choice, source=top / PLAN_NAME))
        if top is not None and planned.task is not None and planned.task in groups:
            grouping = Grouping(groups[planned.task], top, top / PLAN_NAME)
    command = "" if planned is None else planned.command
    if command and choice is not None:
        command += f" --{LR_FLAG.replace('_', '-')} {choice.base_lr!r}"
    # nothing here reads the weights of a transfer, which are large
    damaged = damaged_files(folder, record, without=() if pretrained else (BACKBONE_NAME,))
    return Stored(
        folder=folder,
        record=record,
        arm=arm,
        line=line,
        pretrained=pretrained,
        choice=choice,
        command=command,
        checkpoint_sha256=_checkpoint(folder, record, damaged),
        pretrain_seed=None if planned is None else planned.pretrain_seed,
        added=planned is not None and planned.added,
        grouping=grouping,
        damaged=damaged,
    )


def _checkpoint(folder: Path, record: RunRecord, damaged: Mapping[str, str]) -> str | None:
    """Return the digest of the backbone as it was written; of a record without it, that of the file that lies there."""
    path = folder / BACKBONE_NAME
    if BACKBONE_NAME not in record.outputs or BACKBONE_NAME in record.files_sha256:
        return record.files_sha256.get(BACKBONE_NAME)
    return file_sha256(path) if BACKBONE_NAME not in damaged and path.is_file() else None
