"""The runs that make up a study, in the order in which they run: data, tokenizers, pre-training, search, transfer."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from backbones.weights.declaration import BACKBONE_NAME
from backbones.weights.hub import family_of, is_remote, parse
from benchmark.study.arms import Arm
from benchmark.study.calling import FRACTION_FLAG, LENGTH_FLAGS, Grid, Tools
from benchmark.study.calls import Options
from benchmark.study.plan import Groups, Phase, Plan, Planned
from benchmark.study.pretrainings import Pretrainings, pretrain_name, seconds, without
from benchmark.study.run import Run, checked
from benchmark.study.search import LR_FLAG, Beyond, Search, Side, rates_beyond
from benchmark.study.spec import Study, pretraining_seeds
from benchmark.study.transfer import TransferTask

GROUPS = "groups"  # folder of the files that say which images belong together
# flags of which a held-out part of the training images takes the place
SPLIT_FLAGS = {"train_split", "val_split", "train_json", "val_json", "layout"}


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


class Matrix(Pretrainings):
    """The runs of a study in its folder."""

    def __init__(
        self,
        study: Study,
        *,
        out: Path,
        root: Path,
        tools: Tools,
        lengths: Mapping[str, Options],
        beside: Path | None = None,
        pins: Mapping[str, Path] | None = None,
    ) -> None:
        """As of Pretrainings; `beside`: folder of the study's file; `pins`: files of the arms' weights by name."""
        super().__init__(study, out=out, root=root, tools=tools, lengths=lengths)
        self.beside, self.pins = beside, pins or {}
        self.cells = [Cell(task, fraction) for task in study.transfers for fraction in task.label_fractions]
        self._searched_as = {cell.name: next(c for c in self.cells if alike(c, cell)) for cell in self.cells}
        tried = {cell.name: self._rates(cell) for cell in self._searched_as.values()}
        self._tried = {cell.name: tried[self._searched_as[cell.name].name] for cell in self.cells}

    def runs(self) -> tuple[Run, ...]:
        """Return all runs; the transfers go seed by seed, so that a stop leaves whole comparisons.

        Where pre-training and transfer seeds are tied, a pre-training comes right before the transfers of its seed.
        """
        searched = [cell for cell in self.cells if self._searched_as[cell.name] is cell]
        held_out = {cell.task.name: cell.task for cell in searched if cell.task.search and cell.task.search.hold_out}
        first, *others = pretraining_seeds(self.study)
        tied = self.study.pretrain_seeds == "tied"
        return (
            *(self._scenes(item.name, item.options) for item in self.study.scenes),
            *(self._held_out(task) for task in held_out.values()),
            *(self.pretrained(item.name, item, item.options, phase="tokenizer") for item in self.study.tokenizers),
            *self.short_pretrainings(),
            *self.pretrainings(first),
            *(run for seed in others if not tied for run in self.pretrainings(seed)),
            *(run for cell in searched for run in self._searches(cell)),
            *(run for seed in self.study.seeds for run in self._of_seed(seed, pretrain=tied and seed != first)),
        )

    def _of_seed(self, seed: int, *, pretrain: bool) -> Iterator[Run]:
        """Yield the transfers of a seed, and before them its pre-trainings where these are still to come."""
        if pretrain:
            yield from self.pretrainings(seed)
        for cell in self.cells:
            for arm in self.study.arms:
                yield from (self._transfer(cell, arm, seed, start) for start in self._starts(arm, seed))

    def plan(self, runs: Sequence[Run]) -> Plan:
        """Return what the report needs to know of the study."""
        return Plan(
            name=self.study.name,
            claim=self.study.compare.claim,
            against=self.study.compare.against,
            pass_mark=self.study.compare.pass_mark,
            match=self.study.budget.match,
            match_by_arm=dict(self.study.budget.arms),
            differ=self.study.differ,
            pretrain_seeds=self.study.pretrain_seeds,
            margins=self._margins(),
            looks=self.study.looks,
            protocols={
                task.name: {
                    protocol.name: made.name for protocol, made in zip(task.protocols, task.tasks(), strict=True)
                }
                for task in self.study.tasks
                if task.protocols
            },
            groups={task.name: self._groups(task) for task in self.study.transfers if task.groups is not None},
            published=None if self.study.published is None else self.study.published.table(),
            arms=tuple(arm.label for arm in self.study.arms),
            runs=tuple(
                Planned(
                    folder=str(run.out.relative_to(self.out)),
                    phase=run.phase,
                    kind=run.kind,
                    task=run.task,
                    arm=run.arm,
                    pretrain_seed=run.pretrain_seed,
                    choice=None if run.search is None else str(run.search.out.relative_to(self.out)),
                    optional=run.beyond is not None,
                    command=shlex.join(("python", f"tools/{run.tool}.py", *run.command)),
                )
                for run in runs
            ),
        )

    def _margins(self) -> dict[str, float]:
        """Return the margins; what is said of a task holds for its protocols."""
        given, found = self.study.margins, dict(self.study.margins)
        for task in self.study.tasks:
            if task.name in given:
                found |= {made.name: given[task.name] for made in task.tasks() if made.name not in given}
        return found

    def group_files(self, task: TransferTask) -> tuple[Path, ...]:
        """Return the file of a task's groups, where it has one.

        It lies beside the study's file or below the root; where it is gone the study's copy stands for it.
        """
        if task.groups is None or task.groups.file is None:
            return ()
        file = self.place(task.groups.file)
        there = [self.beside / task.groups.file] if self.beside is not None else []
        there += [file, self.out / GROUPS / f"{task.name}.csv"]
        return (next((path for path in there if path.is_file()), file),)

    def _scenes(self, name: str, options: Options) -> Run:
        out = self.out / name
        kind = f"make_scenes {name}"
        return self.call(name, "make_scenes", None, options, out=out, phase="data", kind=kind, seconds=10.0)

    def _held_out(self, task: TransferTask) -> Run:
        assert task.search is not None
        out, data = self._held_out_folder(task), self.place(task.data)
        given = {name: value for name, (value, _) in self._splits_of_recipe(task).items()} | task.options
        given = {name: value for name, value in given.items() if name in SPLIT_FLAGS - {"val_split", "val_json"}}
        placed, files = self.placed(task.tool, task.recipe, given)
        return self.call(
            f"hold-out-{task.name}",
            "hold_out",
            None,
            {"tool": task.tool, "data": data, "share": task.search.hold_out, **placed},
            out=out,
            phase="data",
            kind="hold_out",
            inputs=self.not_made(data, *files),
            needs=self.made_by(data),
            seconds=5.0,
        )

    def _splits_of_recipe(self, task: TransferTask) -> dict[str, tuple[Any, Any]]:
        """Return the flags of splits that the task's recipe sets (LVIS), each with its value and the usual one."""
        config = self.tools[task.tool].recipes[task.recipe]()
        known = [f for f in fields(config) if f.name in SPLIT_FLAGS and f.default is not MISSING]
        found = {f.name: (getattr(config, f.name), f.default) for f in known}
        return {name: (value, usual) for name, (value, usual) in found.items() if value != usual}

    def _held_out_folder(self, task: TransferTask) -> Path:
        return self.out / "held-out" / task.name

    def _starts(self, arm: Arm, seed: int) -> tuple[int | None, ...]:
        """Return the seeds of the pre-trainings that a transfer seed starts from."""
        if arm.pretrain is None or self.study.pretrain_seeds == "one":
            return (None,)
        return (seed,) if self.study.pretrain_seeds == "tied" else pretraining_seeds(self.study)

    def _groups(self, task: TransferTask) -> Groups:
        assert task.groups is not None
        if task.groups.file is None:
            return Groups(pattern=task.groups.pattern)
        return Groups(file=f"{GROUPS}/{task.name}.csv")  # a copy, so that the study's folder is enough

    def _searches(self, cell: Cell) -> Iterator[Run]:
        """Yield the runs of a task's search, and behind them those beyond its grid."""
        first: dict[str, Run] = {}
        for rates, beyond in self._tried[cell.name]:
            for arm in self.study.arms:
                if beyond is not None:
                    yield self._beyond(first[arm.label], cell, arm, rates[0], beyond)
                    continue
                runs = [self._searched(cell, arm, lr) for lr in rates]
                first[arm.label] = runs[0]
                yield from runs

    def _beyond(self, run: Run, cell: Cell, arm: Arm, lr: float, beyond: Beyond) -> Run:
        """Return a run of the grid at a rate beyond it; made of that, since most of these are never needed."""
        out = self._search_folder(cell, arm, lr)
        job = None if run.job is None else run.job.with_option(LR_FLAG, lr)
        return replace(
            run,
            name=_search_name(cell, arm, lr),
            job=None if job is None else replace(job, args=replace(job.args, out=out)),
            out=out,
            records=tuple(out / path.relative_to(run.out) for path in run.records),
            beyond=beyond,
        )

    def _rates(self, cell: Cell) -> list[tuple[tuple[float, ...], Beyond | None]]:
        """Return the rates of the grid, and then each rate beyond it with when it is tried."""
        grid, metric = cell.task.search, self.tools[cell.task.tool].metric
        if grid is None:
            return []
        found: list[tuple[tuple[float, ...], Beyond | None]] = [(grid.base_lrs, None)]
        for side in get_args(Side):
            tried, when = grid.base_lrs, None
            for lr in rates_beyond(grid.base_lrs, side, grid.widen) if grid.widen else ():
                assert metric is not None  # of every tool that is searched
                when = Beyond(
                    side=side,
                    grids=tuple(
                        tuple((r, self._search_folder(cell, arm, r)) for r in tried) for arm in self.study.arms
                    ),
                    runs=tuple(_search_name(cell, arm, r) for arm in self.study.arms for r in tried),
                    metric=metric,
                    nearer=when,
                )
                found.append(((lr,), when))
                tried = (*tried, lr)
        return found

    def _searched(self, cell: Cell, arm: Arm, lr: float) -> Run:
        grid = cell.task.search
        assert grid is not None
        data = self.place(grid.data or cell.task.data)
        needs, options = self.made_by(data), _search_options(cell, grid)
        if grid.hold_out is not None:  # under the usual names of the layout, whatever those of the recipe are
            data, needs = self._held_out_folder(cell.task), (f"hold-out-{cell.task.name}",)
            usual = {name: usual for name, (_, usual) in self._splits_of_recipe(cell.task).items() if name != "layout"}
            options = usual | options
        return self._trained(
            cell,
            arm,
            _search_name(cell, arm, lr),
            self._search_folder(cell, arm, lr),
            {**options, LR_FLAG: lr, "seed": grid.seed},
            data=data,
            needs=needs,
            phase="search",
            # every seed has the rate that its arm's first pre-training is searched with
            pretrain_seed=pretraining_seeds(self.study)[0] if arm.pretrain is not None else None,
        )

    def _transfer(self, cell: Cell, arm: Arm, seed: int, start: int | None) -> Run:
        crossed = start is not None and self.study.pretrain_seeds == "crossed"
        name = f"{cell.name}-{arm.label}{f'-pretrain{start}' if crossed else ''}-seed{seed}"
        search = None if cell.task.search is None else self._search(cell, arm, cell.task.search)
        return self._trained(
            cell,
            arm,
            name,
            self.out / name,
            {**cell.options(), "seed": seed},
            data=self.place(cell.task.data),
            needs=self.made_by(self.place(cell.task.data)),
            phase="transfer",
            pretrain_seed=start,
            search=search,
        )

    def _file(self, init: str, options: Options) -> tuple[dict[str, Any], tuple[Path, ...]]:
        """Return the flags of an arm's weights, and the file that must be there; weights by name are fetched later."""
        if not is_remote(init):
            return {"init": self.place(init), **options}, (self.place(init),)
        family = family_of(parse(init))
        known = {} if family is None else {"init_source": family}
        path = self.pins.get(init)
        return {"init": Path(init) if path is None else path, **known, **options}, ()

    def _search(self, cell: Cell, arm: Arm, grid: Grid) -> Search:
        tried = [(lr, beyond) for rates, beyond in self._tried[cell.name] for lr in rates]
        searched = self._searched_as[cell.name]
        return Search(
            task=cell.name,
            arm=arm.label,
            seed=grid.seed,
            grid=tuple((lr, self._search_folder(searched, arm, lr)) for lr, _ in tried),
            runs=tuple(_search_name(searched, arm, lr) for lr, _ in tried),
            beyond=tuple(beyond for _, beyond in tried),
            out=self.out / "search" / f"{cell.name}-{arm.label}",
        )

    def _search_folder(self, cell: Cell, arm: Arm, lr: float) -> Path:
        return self.out / "search" / f"{cell.name}-{arm.label}" / f"lr{lr!r}"

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
        pretrain_seed: int | None,
        search: Search | None = None,
    ) -> Run:
        """Return a run of a task, started from the weights of an arm."""
        task = cell.task
        placed, files = self.placed(task.tool, task.recipe, options)
        start: dict[str, Any] = {}
        weights: tuple[Path, ...] = ()
        if arm.pretrain is not None:
            name_of_start = pretrain_name(arm, pretrain_seed)
            start = {"init": self.out / name_of_start / BACKBONE_NAME}
            needs = (*needs, name_of_start)
        elif arm.init is not None:
            start, weights = self._file(arm.init, arm.options)
        if start and self.study.differ:
            start["init_architecture"] = "file"
        own = self.tools[task.tool].own()
        if "cache" in own:  # features of the same weights are the same for every seed
            start["cache"] = self.out / "features"
        if "arm" in own:
            start["arm"] = arm.label
        run = self.call(
            name,
            task.tool,
            task.recipe,
            {"data": data, **start, **placed},
            out=out,
            phase=phase,
            kind=f"{phase} {cell.name}",
            task=task.name,
            arm=arm.label,
            pretrain_seed=pretrain_seed,
            data=data,
            init=start.get("init"),
            inputs=self.not_made(data, *weights, *files, *self.group_files(task)),
            needs=needs,
            search=search,
            records=tuple(out / name for name in self.tools[task.tool].records) or (out,),
            seconds=seconds(task.hours),
        )
        return checked(run)


def alike(one: Cell, other: Cell) -> bool:
    """Return whether the searches of two tasks would do the same runs, as those of protocols that differ in length."""
    first, second = one.task, other.task
    if first.search is None or second.search is None:
        return one is other
    return (
        (first.tool, first.recipe, first.data) == (second.tool, second.recipe, second.data)
        and first.search.model_copy(update={"options": {}}) == second.search.model_copy(update={"options": {}})
        and _search_options(one, first.search) == _search_options(other, second.search)
        and all(first.options.get(flag) == second.options.get(flag) for flag in SPLIT_FLAGS)
    )


def _search_options(cell: Cell, grid: Grid) -> dict[str, Any]:
    """Return the flags of a task's search, rate and seed apart."""
    options = cell.options()
    if grid.hold_out is not None:  # what was held out lies under the usual names of the layout
        options = without(options, SPLIT_FLAGS - {"layout"})
    if LENGTH_FLAGS & grid.options.keys():  # a length of its own takes the place of the task's, in whatever unit
        options = without(options, LENGTH_FLAGS)
    return {**options, **grid.options}


def _search_name(cell: Cell, arm: Arm, lr: float) -> str:
    return f"search-{cell.name}-{arm.label}-lr{lr!r}"
