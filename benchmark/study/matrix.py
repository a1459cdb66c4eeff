"""The runs that make up a study, in the order in which they run: data, tokenizers, pre-training, search, transfer."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.compare.lines import CHECKPOINT_NAME
from benchmark.study.plan import Phase, Plan, Planned
from benchmark.study.search import RATE_FLAG, Search
from benchmark.study.spec import FRACTION_FLAG, Arm, Grid, Pretraining, Study, Tools, TransferTask
from benchmark.study.tool import Job

Options = Mapping[str, Any]  # flags by name
PHASES: tuple[Phase, ...] = ("data", "tokenizer", "pretrain", "search", "transfer")
LENGTH_FLAGS = {"steps", "epochs", "length"}
# flags of which a held-out part of the training images takes the place
SPLIT_FLAGS = {"train_split", "val_split", "train_json", "val_json", "layout"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a tool."""

    name: str
    tool: str
    """Name of the tool, a key of the suite's tools."""
    recipe: str | None
    job: Job | None
    """What it is called with, without a learning rate that is searched; None where that makes no configuration."""
    fault: str | None = None
    """Why it makes none."""
    out: Path
    """Folder that it writes to."""
    logs: Path
    """Folder of what it prints."""
    phase: Phase
    kind: str
    """Runs of one kind take about the same time."""
    task: str | None = None
    """Of a search or a transfer."""
    arm: str | None = None
    data: Path | None = None
    """Folder of its data set, as in argv; None where it takes none."""
    init: Path | None = None
    """Checkpoint that it starts from, as in argv."""
    inputs: tuple[Path, ...] = ()
    """Files and folders that no run of the study makes."""
    needs: tuple[str, ...] = ()
    """Names of runs that must have succeeded before."""
    search: Search | None = None
    """Chooses its learning rate."""
    records: tuple[Path, ...]
    """Folders of the records that it leaves, the last one written last."""
    seconds: float | None = None
    """About how long it takes, as the study states: the ETA until a run of its kind has been timed."""

    @property
    def log(self) -> Path:
        """File that holds what it prints."""
        return self.logs / f"{self.name}.log"

    @property
    def settings(self) -> dict[str, Any] | None:
        """The configuration that its record would hold; None where it leaves none."""
        return None if self.job is None else self.job.settings

    @property
    def command(self) -> tuple[str, ...]:
        """The words of its command line, behind the tool's name."""
        return () if self.job is None else tuple(self.job.command())


@dataclass(frozen=True)
class Cell:
    """A task at one fraction of the labels."""

    task: TransferTask
    fraction: float

    @property
    def name(self) -> str:
        """The task's, with the fraction where it is not all."""
        return self.task.name if self.fraction == 1 else f"{self.task.name}_{100 * self.fraction:g}pct"

    def options(self) -> dict[str, Any]:
        """Return the task's flags with the fraction of the labels."""
        return self.task.options if self.fraction == 1 else {**self.task.options, FRACTION_FLAG: self.fraction}


class Matrix:
    """A study in its folder."""

    def __init__(self, study: Study, *, out: Path, root: Path, tools: Tools, lengths: Mapping[str, Options]) -> None:
        """`root`: where relative paths start; `lengths`: of pre-trainings, by arm, where they are scaled."""
        self.study, self.out, self.root, self.tools, self.lengths = study, out, root, tools, lengths
        self.made = {item.name for item in study.scenes} | {item.name for item in study.tokenizers}
        self.cells = [Cell(task, fraction) for task in study.tasks for fraction in task.label_fractions]

    def runs(self) -> tuple[Run, ...]:
        """Return all runs; the transfers go seed by seed, so that a stop leaves whole comparisons."""
        held_out = [task for task in self.study.tasks if task.search is not None and task.search.hold_out is not None]
        return (
            *(self._scenes(item.name, item.options) for item in self.study.scenes),
            *(self._held_out(task) for task in held_out),
            *(self._pretrained(item.name, item, item.options, phase="tokenizer") for item in self.study.tokenizers),
            *(self._pretrain(arm) for arm in self.study.arms if arm.pretrain is not None),
            *(
                self._searched(cell, arm, rate)
                for cell in self.cells
                for arm in self.study.arms
                if cell.task.search is not None
                for rate in cell.task.search.base_lrs
            ),
            *(
                self._transfer(cell, arm, seed)
                for seed in self.study.seeds
                for cell in self.cells
                for arm in self.study.arms
            ),
        )

    def plan(self, runs: Sequence[Run]) -> Plan:
        """Return what the report needs to know of the study."""
        return Plan(
            name=self.study.name,
            claim=self.study.compare.claim,
            against=self.study.compare.against,
            pass_mark=self.study.compare.pass_mark,
            match=self.study.budget.match,
            differ=self.study.differ,
            published=None if self.study.published is None else self.study.published.table(),
            arms=tuple(arm.label for arm in self.study.arms),
            runs=tuple(
                Planned(
                    folder=str(run.out.relative_to(self.out)),
                    phase=run.phase,
                    kind=run.kind,
                    task=run.task,
                    arm=run.arm,
                    choice=None if run.search is None else str(run.search.out.relative_to(self.out)),
                    command=shlex.join(("python", f"tools/{run.tool}.py", *run.command)),
                )
                for run in runs
            ),
        )

    def place(self, path: str) -> Path:
        """Return a path of the study file: below the study's folder for what it makes itself, else below the root."""
        return (self.out if {*Path(path).parts[:1]} & self.made else self.root) / path

    def _scenes(self, name: str, options: Options) -> Run:
        out = self.out / name
        kind = f"make_scenes {name}"
        return self._run(name, "make_scenes", None, options, out=out, phase="data", kind=kind, seconds=10.0)

    def _held_out(self, task: TransferTask) -> Run:
        assert task.search is not None
        out, data = self._held_out_folder(task), self.place(task.data)
        given = {name: task.options[name] for name in task.options if name in SPLIT_FLAGS - {"val_split", "val_json"}}
        placed, files = self._placed(task.tool, task.recipe, given)
        return self._run(
            f"hold-out-{task.name}",
            "hold_out",
            None,
            {"tool": task.tool, "data": data, "share": task.search.hold_out, **placed},
            out=out,
            phase="data",
            kind="hold_out",
            inputs=self._not_made(data, *files),
            needs=self._made_by(data),
            seconds=5.0,
        )

    def _held_out_folder(self, task: TransferTask) -> Path:
        return self.out / "held-out" / task.name

    def _pretrain(self, arm: Arm) -> Run:
        assert arm.pretrain is not None
        options: Options = arm.pretrain.options
        if arm.label in self.lengths:
            options = _without(options, LENGTH_FLAGS) | {**self.lengths[arm.label]}
        return self._pretrained(f"pretrain-{arm.label}", arm.pretrain, options, phase="pretrain", arm=arm)

    def _pretrained(
        self, name: str, given: Pretraining, options: Options, *, phase: Phase, arm: Arm | None = None
    ) -> Run:
        """Return a run of tools/pretrain.py."""
        data, out = self.place(given.data), self.out / name
        placed, files = self._placed("pretrain", given.recipe, options)
        label = {} if arm is None else {"arm": arm.label}
        return self._run(
            name,
            "pretrain",
            given.recipe,
            {"data": data, **label, **placed},
            out=out,
            phase=phase,
            kind=name.replace("-", " ") if arm is not None else f"{phase} {name}",
            arm=None if arm is None else arm.label,
            data=data,
            inputs=self._not_made(data, *files),
            needs=self._made_by(data, *files),
            seconds=_seconds(given.hours),
        )

    def _searched(self, cell: Cell, arm: Arm, rate: float) -> Run:
        grid = cell.task.search
        assert grid is not None
        data = self.place(grid.data or cell.task.data)
        needs = self._made_by(data)
        options = cell.options()
        if grid.hold_out is not None:
            data, needs = self._held_out_folder(cell.task), (f"hold-out-{cell.task.name}",)
            # what was held out lies under the usual names of the layout
            options = _without(options, SPLIT_FLAGS - {"layout"})
        if LENGTH_FLAGS & grid.options.keys():  # a length of its own takes the place of the task's, in whatever unit
            options = _without(options, LENGTH_FLAGS)
        return self._trained(
            cell,
            arm,
            _search_name(cell, arm, rate),
            self._search_folder(cell, arm, rate),
            {**options, **grid.options, RATE_FLAG: rate, "seed": grid.seed},
            data=data,
            needs=needs,
            phase="search",
        )

    def _transfer(self, cell: Cell, arm: Arm, seed: int) -> Run:
        name = f"{cell.name}-{arm.label}-seed{seed}"
        search = None if cell.task.search is None else self._search(cell, arm, cell.task.search)
        return self._trained(
            cell,
            arm,
            name,
            self.out / name,
            {**cell.options(), "seed": seed},
            data=self.place(cell.task.data),
            needs=self._made_by(self.place(cell.task.data)),
            phase="transfer",
            search=search,
        )

    def _search(self, cell: Cell, arm: Arm, grid: Grid) -> Search:
        return Search(
            task=cell.name,
            arm=arm.label,
            seed=grid.seed,
            grid=tuple((rate, self._search_folder(cell, arm, rate)) for rate in grid.base_lrs),
            runs=tuple(_search_name(cell, arm, rate) for rate in grid.base_lrs),
            out=self.out / "search" / f"{cell.name}-{arm.label}",
        )

    def _search_folder(self, cell: Cell, arm: Arm, rate: float) -> Path:
        return self.out / "search" / f"{cell.name}-{arm.label}" / f"lr{rate!r}"

    def _trained(
        self,
        cell: Cell,
        arm: Arm,
        name: str,
        out: Path,
        options: Options,
        *,
        data: Path,
        needs: tuple[str, ...],
        phase: Phase,
        search: Search | None = None,
    ) -> Run:
        """Return a run of a task, started from the weights of an arm."""
        task = cell.task
        placed, files = self._placed(task.tool, task.recipe, options)
        start: dict[str, Any] = {}
        weights: tuple[Path, ...] = ()
        if arm.pretrain is not None:
            start = {"init": self.out / f"pretrain-{arm.label}" / CHECKPOINT_NAME}
            needs = (*needs, f"pretrain-{arm.label}")
        elif arm.init is not None:
            start, weights = {"init": self.place(arm.init), **arm.options}, (self.place(arm.init),)
        if start and self.study.differ:
            start["init_architecture"] = "file"
        own = self.tools[task.tool].own()
        if "cache" in own:  # features of the same weights are the same for every seed
            start["cache"] = self.out / "features"
        if "arm" in own:
            start["arm"] = arm.label
        run = self._run(
            name,
            task.tool,
            task.recipe,
            {"data": data, **start, **placed},
            out=out,
            phase=phase,
            kind=f"{phase} {cell.name}",
            task=task.name,
            arm=arm.label,
            data=data,
            init=start.get("init"),
            inputs=self._not_made(data, *weights, *files),
            needs=needs,
            search=search,
            records=(out / "knn", out / "linear_features") if task.tool == "probe" else (out,),
            seconds=_seconds(task.hours),
        )
        if search is not None and run.fault is None:  # which rate it gets is not known, whether it takes one is
            try:
                with_rate(run, search.grid[0][0])
            except ValueError as error:
                return replace(run, fault=str(error).rstrip("."))
        return run

    def _run(
        self,
        name: str,
        tool: str,
        recipe: str | None,
        given: Options,
        *,
        out: Path,
        records: tuple[Path, ...] = (),
        **more: Any,
    ) -> Run:
        job, fault = None, None
        try:
            job = self.tools[tool].job(recipe, {"out": out, **given})
        except (ValueError, OSError) as error:
            fault = str(error).rstrip(".")
        return Run(
            name=name, tool=tool, recipe=recipe, job=job, fault=fault, out=out, logs=self.out / "logs",
            records=records or (out,), **more,
        )  # fmt: skip

    def _placed(self, tool: str, recipe: str, options: Options) -> tuple[dict[str, Any], list[Path]]:
        """Return flags with their paths in place, and the files that they name."""
        named = self.tools[tool].files(recipe)
        placed, files = {}, []
        for name, value in options.items():
            if name in named and value is not None:
                path = self.place(str(value))
                files.append(path)
                value = type(value)(path)
            placed[name] = value
        return placed, files

    def _made_by(self, *paths: Path) -> tuple[str, ...]:
        """Return the names of the runs that make these files and folders."""
        return tuple(sorted(name for name in self.made if any(path.is_relative_to(self.out / name) for path in paths)))

    def _not_made(self, *paths: Path) -> tuple[Path, ...]:
        return tuple(path for path in paths if not path.is_relative_to(self.out))


def with_rate(run: Run, rate: float) -> Run:
    """Return a run with the learning rate that its search has chosen. Raises ValueError where it cannot have it."""
    assert run.job is not None
    return replace(run, job=run.job.with_option(RATE_FLAG, rate))


def _without(options: Options, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _search_name(cell: Cell, arm: Arm, rate: float) -> str:
    return f"search-{cell.name}-{arm.label}-lr{rate!r}"


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else 3600 * hours
