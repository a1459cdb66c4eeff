"""What a study has planned, beside its runs: which folder is which run, and what is claimed (`study.json`).

Without such a file a folder of records is compared as it is, by `benchmark.compare.lines` alone.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from benchmark.study.full_scale import FullScale
from engine.config import as_json
from engine.records.record import RECORD_NAME
from engine.records.version1 import plan_of_today
from files.digest import sealed, unsealed
from files.naming import inside
from files.parsing import read_json
from files.typed import from_json
from files.writing import replacing

NAME = "study.json"
Phase = Literal["data", "tokenizer", "pretrain-search", "pretrain-probe", "pretrain", "search", "transfer"]
Match = Literal["samples", "flops", "none"]
PretrainSeeds = Literal["one", "tied", "crossed"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a study."""

    folder: str
    """Relative to the plan's."""
    phase: Phase
    kind: str
    """Runs of one kind take about the same time and space."""
    task: str | None = None
    """Name of a transfer's or a search's task."""
    arm: str | None = None
    choice: str | None = None
    """Folder of the search that chose its learning rate, relative to the plan's."""
    pretrain_seed: int | None = None
    """Of a pre-training, and of the pre-training that a transfer starts from; None where the arm has one alone."""
    added: bool = False
    """Whether it was planned after transfers of other seeds of its task and arm had left records."""
    optional: bool = False
    """Whether it is run only where an arm's best learning rate is an end of the grid."""
    command: str = ""
    """Repeats the run alone, without a learning rate that is searched; empty in plans that were written before it."""


MOST_LOOKS, MOST_SEEDS = 20, 10_000
LONGEST_PATTERN = 200  # characters
MOST_REPEATS = 3  # a study of somebody else must not search for ever


def check_pattern(pattern: str) -> None:
    """Raise ValueError for what is no regular expression with one group, or one that may take for ever."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of {len(pattern)} characters; give it {LONGEST_PATTERN} at most")
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if found.groups != 1:
        raise ValueError(f"{pattern!r} has {found.groups} groups; put the one part that is a group's name in brackets")
    if re.search(r"\)[*+?{]", pattern) or len(re.findall(r"[*+{]", pattern)) > MOST_REPEATS:
        raise ValueError(
            f"{pattern!r} repeats a part in brackets, or more than {MOST_REPEATS} parts, and may take for ever; give a "
            "file of name,group lines"
        )


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Which test images of a task belong together, as the frames of a video do."""

    pattern: str | None = None
    """Regular expression whose one group is found in the name of every image."""
    file: str | None = None
    """Relative to the plan's folder: a line `name,group` for every image."""

    def __post_init__(self) -> None:
        """Raise ValueError where neither or both are given, or for a pattern that is none."""
        if (self.pattern is None) == (self.file is None):
            raise ValueError("groups are given by a pattern or by a file, one of them")
        if self.pattern is not None:
            check_pattern(self.pattern)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study as its report needs it."""

    name: str
    claim: str = "mae"
    """Arm whose advantage the verdicts are about."""
    against: str = "supervised"
    """Arm of the headline comparison."""
    pass_mark: float | None = None
    """Percent top1 of the supervised arm on its own held-out images, below which it has not learned its task."""
    match: Match = "samples"
    """What the pre-trainings of the arms share."""
    match_by_arm: dict[str, Match] = field(default_factory=dict)
    """What an arm shares with the claim's in place of that."""
    arms: tuple[str, ...] = ()
    """Labels, in the order of the tables."""
    differ: tuple[str, ...] = ()
    """Parts of the architecture in which the arms differ by intention."""
    pretrain_seeds: PretrainSeeds = "one"
    """one: each arm is pre-trained once; tied: transfer seed s starts from pre-training s; crossed: every transfer seed
    starts from every pre-training."""
    margins: dict[str, float] = field(default_factory=dict)
    """Task or metric -> difference below which two arms are called equivalent, in units of the metric; a task goes
    before a metric."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds (pre-trainings, where crossed) at which verdicts are read; none: once, at all seeds."""
    protocols: dict[str, dict[str, str]] = field(default_factory=dict)
    """What a study calls a task -> protocol -> task of the runs, where it has several."""
    groups: dict[str, Groups] = field(default_factory=dict)
    """Task -> which of its test images belong together."""
    published: FullScale | None = None
    """What a paper reports of the same question at full scale."""
    runs: tuple[Planned, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for looks that do not rise and margins that are none."""
        if len(self.looks) > MOST_LOOKS or max(self.looks, default=0) > MOST_SEEDS:
            raise ValueError(f"looks: more than {MOST_LOOKS}, or at more than {MOST_SEEDS:,} seeds")
        if self.looks and (self.looks[0] < 2 or any(a >= b for a, b in pairwise(self.looks))):
            raise ValueError(f"looks: {[*self.looks]} must rise, from two seeds on")
        for name, margin in self.margins.items():
            if not 0 < margin < math.inf:
                raise ValueError(f"margins.{name}: {margin!r} is no number above 0")

    def match_of(self, arm: str) -> Match:
        """Return what an arm's pre-training shares with the claim's."""
        return self.match_by_arm.get(arm, self.match)

    def margin(self, task: str, label: str, metric: str) -> float | None:
        """Return the margin of a task (or of its line in the tables) or of a metric; None where none is declared."""
        return next((self.margins[name] for name in (task, label, metric) if name in self.margins), None)

    def of(self, folder: Path, root: Path) -> Planned | None:
        """Return the run that wrote to `folder` or above it, below the plan's folder `root`."""
        inside = folder.relative_to(root)
        found = (self._by_folder.get(str(path)) for path in (inside, *inside.parents))
        return next((run for run in found if run is not None), None)

    @cached_property
    def _by_folder(self) -> dict[str, Planned]:
        return {run.folder: run for run in self.runs}


CLAIMED = (
    "claim", "against", "pass_mark", "match", "differ", "pretrain_seeds", "margins", "looks", "protocols",
    "groups",
)  # fmt: skip


def write_plan(root: Path, plan: Plan) -> Path:
    """Write `root/study.json` and return its path.

    Transfers of seeds that an earlier plan had stay in it, and pre-trainings of seeds that it had of the same arms.
    """
    path = root / NAME
    here = {run.folder for run in plan.runs}
    wanted = {_repeated(run) for run in plan.runs} - {None}
    earlier = _read(path).runs if path.is_file() else ()
    ran = {_repeated(run) for run in earlier if run.phase == "transfer" and _recorded(root / run.folder)}
    before = {run.folder: run for run in earlier}
    runs = [replace(run, added=_added(run, before, ran)) for run in plan.runs]
    kept = [run for run in earlier if run.folder not in here and _repeated(run) in wanted]
    whole = sealed({**as_json(plan), "runs": [as_json(run) for run in (*runs, *kept)]})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return path


def _added(run: Planned, before: Mapping[str, Planned], ran: Collection[tuple[str | None, ...] | None]) -> bool:
    """Return whether a run came to a plan whose other seeds of the same task and arm had run already."""
    earlier = before.get(run.folder)
    return run.phase == "transfer" and _repeated(run) in ran if earlier is None else earlier.added


def _recorded(folder: Path) -> bool:
    """Return whether a run left a record in its folder, or below it as probes do."""
    return next(folder.rglob(RECORD_NAME), None) is not None


def _repeated(run: Planned) -> tuple[str | None, ...] | None:
    """Return what runs of other seeds share with this one; None for a run that has one seed alone."""
    if run.phase == "transfer":
        return (run.phase, run.task, run.arm, run.kind)
    return (run.phase, run.arm) if run.phase == "pretrain" and run.pretrain_seed is not None else None


def read_plans(root: Path) -> dict[Path, Plan]:
    """Return the plans at or below `root` by their folders.

    Raises ValueError for one that cannot be read, and for two that claim different things.
    """
    plans = {path.parent: _read(path) for path in sorted(root.rglob(NAME))}
    first = next(iter(plans.items()), None)
    for folder, plan in plans.items():
        assert first is not None
        for name in CLAIMED:
            if getattr(plan, name) != getattr(first[1], name):
                raise ValueError(
                    f"{folder / NAME}: {name} is {getattr(plan, name)!r}, and {getattr(first[1], name)!r} in "
                    f"{first[0] / NAME}; studies that claim different things are exported one by one."
                )
    return plans


def planned_at(plans: dict[Path, Plan], folder: Path) -> tuple[Path | None, Planned | None]:
    """Return the folder of the plan that speaks of this place, and what it says of the run here."""
    for root in (folder, *folder.parents):
        if root in plans:
            return root, plans[root].of(folder, root)
    return None, None


def _read(path: Path) -> Plan:
    inside(path.parent, path.name, source=path.parent)
    try:
        values = read_json(path)
        plan = from_json(Plan, plan_of_today(unsealed(values, str(path)) if isinstance(values, dict) else values))
        for name in ("claim", "against"):
            if plan.arms and getattr(plan, name) not in plan.arms:
                raise ValueError(f"{name}: {getattr(plan, name)!r} is none of its arms")
        return plan
    except ValueError as error:
        raise ValueError(f"{path}: not a readable plan ({error}). Remove it; the study writes it anew.") from error
