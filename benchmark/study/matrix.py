"""The runs that make up a study, in the order in which they run: data, tokenizers, pre-training, search, transfer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.compare.lines import CHECKPOINT_NAME
from benchmark.study.plan import Phase, Plan, Planned
from benchmark.study.search import Search
from benchmark.study.spec import FRACTION_FLAG, RATE_FLAG, Arm, Flag, Grid, Pretraining, Study, TransferTask

PATHS = Mapping[str, bool]  # flag -> whether it names a file or folder
FILE_ARCHITECTURE = ("--init-architecture", "file")  # where the study says that the arms differ in theirs
PHASES: tuple[Phase, ...] = ("data", "tokenizer", "pretrain", "search", "transfer")
LENGTH_FLAGS = {"steps", "epochs"}
# flags of which a held-out part of the training images takes the place
SPLIT_FLAGS = {"train_split", "val_split", "train_json", "val_json", "layout"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a tool."""

    name: str
    tool: str
    """Name of the tool, a key of the suite's tools."""
    argv: tuple[str, ...]
    """Its command line, without --resume and without a learning rate that is searched."""
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


@dataclass(frozen=True)
class Cell:
    """A task at one fraction of the labels."""

    task: TransferTask
    fraction: float

    @property
    def name(self) -> str:
        """The task's, with the fraction where it is not all."""
        return self.task.name if self.fraction == 1 else f"{self.task.name}_{100 * self.fraction:g}pct"

    def flags(self) -> tuple[Flag, ...]:
        """Return the task's flags with the fraction of the labels."""
        return (
            self.task.flags if self.fraction == 1 else (*self.task.flags, Flag(FRACTION_FLAG, (repr(self.fraction),)))
        )


class Matrix:
    """A study in its folder."""

    def __init__(
        self, study: Study, *, out: Path, root: Path, flags: Mapping[str, PATHS], lengths: Mapping[str, Flag]
    ) -> None:
        """`root`: where relative paths start; `flags`: of every tool; `lengths`: of pre-trainings, where scaled."""
        self.study, self.out, self.root, self.flags, self.lengths = study, out, root, flags, lengths
        self.made = {item.name for item in study.scenes} | {item.name for item in study.tokenizers}
        self.cells = [Cell(task, fraction) for task in study.tasks for fraction in task.label_fractions]

    def runs(self) -> tuple[Run, ...]:
        """Return all runs; the transfers go seed by seed, so that a stop leaves whole comparisons."""
        held_out = [task for task in self.study.tasks if task.search is not None and task.search.hold_out is not None]
        return (
            *(self._scenes(item.name, item.flags) for item in self.study.scenes),
            *(self._held_out(task) for task in held_out),
            *(
                self._pretrained(item.name, item.train, item.train.flags, phase="tokenizer")
                for item in self.study.tokenizers
            ),
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
            claim=self.study.claim,
            against=self.study.against,
            pass_mark=self.study.pass_mark,
            match=self.study.match,
            differ=self.study.differ,
            published=self.study.published,
            arms=tuple(arm.label for arm in self.study.arms),
            runs=tuple(
                Planned(
                    folder=str(run.out.relative_to(self.out)),
                    phase=run.phase,
                    kind=run.kind,
                    task=run.task,
                    arm=run.arm,
                    choice=None if run.search is None else str(run.search.out.relative_to(self.out)),
                )
                for run in runs
            ),
        )

    def place(self, path: str) -> Path:
        """Return a path of the study file: below the study's folder for what it makes itself, else below the root."""
        return (self.out if {*Path(path).parts[:1]} & self.made else self.root) / path

    def _scenes(self, name: str, flags: tuple[Flag, ...]) -> Run:
        out = self.out / name
        argv = ("--out", str(out), *(text for flag in flags for text in flag.argv()))
        return self._run(name, "make_scenes", argv, out=out, phase="data", kind=f"make_scenes {name}", seconds=10.0)

    def _held_out(self, task: TransferTask) -> Run:
        assert task.search is not None
        out, data = self._held_out_folder(task), self.place(task.data)
        given = {flag.name: flag for flag in task.flags if flag.name in SPLIT_FLAGS - {"val_split", "val_json"}}
        texts, files = self._texts(task.tool, tuple(given.values()))
        argv = (task.tool, "--data", str(data), "--out", str(out), "--share", repr(task.search.hold_out), *texts)
        return self._run(
            f"hold-out-{task.name}",
            "hold_out",
            argv,
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
        flags = arm.pretrain.flags
        if arm.label in self.lengths:
            flags = (*(flag for flag in flags if flag.name not in LENGTH_FLAGS), self.lengths[arm.label])
        return self._pretrained(f"pretrain-{arm.label}", arm.pretrain, flags, phase="pretrain", arm=arm)

    def _pretrained(
        self, name: str, given: Pretraining, flags: tuple[Flag, ...], *, phase: Phase, arm: Arm | None = None
    ) -> Run:
        """Return a run of tools/pretrain.py."""
        data, out = self.place(given.data), self.out / name
        texts, files = self._texts("pretrain", flags)
        label = () if arm is None else self._label("pretrain", arm)
        return self._run(
            name,
            "pretrain",
            (given.recipe, "--data", str(data), "--out", str(out), *label, *texts),
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
        flags = {flag.name: flag for flag in cell.flags()}
        if grid.hold_out is not None:
            data, needs = self._held_out_folder(cell.task), (f"hold-out-{cell.task.name}",)
            # what was held out lies under the usual names of the layout
            flags = {name: flag for name, flag in flags.items() if name not in SPLIT_FLAGS - {"layout"}}
        given = {flag.name: flag for flag in grid.flags}
        if LENGTH_FLAGS & given.keys():  # a length of its own takes the place of the task's, in whatever unit
            flags = {name: flag for name, flag in flags.items() if name not in LENGTH_FLAGS}
        flags |= {**given, RATE_FLAG: Flag(RATE_FLAG, (repr(rate),))}
        return self._trained(
            cell,
            arm,
            _search_name(cell, arm, rate),
            self._search_folder(cell, arm, rate),
            (*flags.values(), Flag("seed", (str(grid.seed),))),
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
            (*cell.flags(), Flag("seed", (str(seed),))),
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
        flags: tuple[Flag, ...],
        *,
        data: Path,
        needs: tuple[str, ...],
        phase: Phase,
        search: Search | None = None,
    ) -> Run:
        """Return a run of a task, started from the weights of an arm."""
        task = cell.task
        texts, files = self._texts(task.tool, flags)
        init: Path | None = None
        weights: tuple[Path, ...] = ()
        if arm.pretrain is not None:
            init = self.out / f"pretrain-{arm.label}" / CHECKPOINT_NAME
            needs = (*needs, f"pretrain-{arm.label}")
        elif arm.init is not None:
            init, weights = self.place(arm.init), (self.place(arm.init),)
        start = () if init is None else ("--init", str(init), *(text for flag in arm.declared for text in flag.argv()))
        if init is not None and self.study.differ:
            start += FILE_ARCHITECTURE
        if "cache" in self.flags[task.tool]:  # features of the same weights are the same for every seed
            start += ("--cache", str(self.out / "features"))
        return self._run(
            name,
            task.tool,
            (task.recipe, "--data", str(data), "--out", str(out), *start, *self._label(task.tool, arm), *texts),
            out=out,
            phase=phase,
            kind=f"{phase} {cell.name}",
            task=task.name,
            arm=arm.label,
            data=data,
            init=init,
            inputs=self._not_made(data, *weights, *files),
            needs=needs,
            search=search,
            records=(out / "knn", out / "linear_features") if task.tool == "probe" else (out,),
            seconds=_seconds(task.hours),
        )

    def _run(
        self,
        name: str,
        tool: str,
        argv: tuple[str, ...],
        *,
        out: Path,
        phase: Phase,
        kind: str,
        task: str | None = None,
        arm: str | None = None,
        data: Path | None = None,
        init: Path | None = None,
        inputs: tuple[Path, ...] = (),
        needs: tuple[str, ...] = (),
        search: Search | None = None,
        records: tuple[Path, ...] = (),
        seconds: float | None = None,
    ) -> Run:
        return Run(
            name=name, tool=tool, argv=argv, out=out, logs=self.out / "logs", phase=phase, kind=kind, task=task,
            arm=arm, data=data, init=init, inputs=inputs, needs=needs, search=search, records=records or (out,),
            seconds=seconds,
        )  # fmt: skip

    def _label(self, tool: str, arm: Arm) -> tuple[str, ...]:
        return ("--arm", arm.label) if "arm" in self.flags[tool] else ()

    def _texts(self, tool: str, flags: Sequence[Flag]) -> tuple[list[str], list[Path]]:
        """Return flags as a command line has them, and the files that they name."""
        texts: list[str] = []
        files: list[Path] = []
        for flag in flags:
            if self.flags[tool].get(flag.name) and not isinstance(flag.value, bool):
                named = [self.place(value) for value in flag.value]
                files += named
                flag = Flag(flag.name, tuple(map(str, named)))
            texts += flag.argv()
        return texts, files

    def _made_by(self, *paths: Path) -> tuple[str, ...]:
        """Return the names of the runs that make these files and folders."""
        return tuple(sorted(name for name in self.made if any(path.is_relative_to(self.out / name) for path in paths)))

    def _not_made(self, *paths: Path) -> tuple[Path, ...]:
        return tuple(path for path in paths if not path.is_relative_to(self.out))


def _search_name(cell: Cell, arm: Arm, rate: float) -> str:
    return f"search-{cell.name}-{arm.label}-lr{rate!r}"


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else 3600 * hours
