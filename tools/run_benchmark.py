"""Carry out a study: pre-train, search learning rates, transfer every arm to every task, and print one table.

    python tools/run_benchmark.py demo
    python tools/run_benchmark.py studies/real_small/study.yaml --data ../data --dry-run
    python tools/run_benchmark.py studies/real_small/study.yaml --data ../data --out runs/real_small
    python tools/run_benchmark.py studies/real_small/study.yaml --data ../data --out runs/real_small --at-once 2
    python tools/run_benchmark.py studies/real_small/study.yaml --data ../data --out runs/real_small --status

A study is a file (docs/studies.md), or the name of one in studies/. The same command again skips what is recorded and
resumes what was interrupted. A run that fails does not stop the others; the exit code is then 1 (130 after Ctrl-C).
"""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from benchmark.compare.fairness import AtDepth, Later
from benchmark.runner.scheduler import Suite, exit_code
from benchmark.runner.slurm import FOLDER as SLURM_FOLDER
from benchmark.runner.slurm import submit
from benchmark.runner.status import dry_run_text, status_text
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.tool import Tool
from engine.config import as_json
from engine.launch import TrainArgs, fail, parse, start, with_length
from engine.probe_flags import ProbeArgs
from engine.spec import RESULT, TaskSpec, TaskTable, at_recipes_depth, of_tool, recipes_of, spec_for, with_later_fields
from files.locking import locked
from mae_transfer.tasks import TASKS
from scenes.config import ScenesConfig
from tools import hold_out, in_context, make_scenes, probe, probe_dense

STUDIES = Path(__file__).resolve().parents[1] / "studies"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of a study."""

    study: Annotated[str, tyro.conf.Positional]
    """A study file, or the name of one in studies/."""
    out: Path | None = None
    """Folder for runs, logs and tables; runs/NAME unless given."""
    data: Path | None = None
    """Folder that the paths of the file start from; the file's own `data` unless given."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the transfer runs; the file's own unless given."""
    dry_run: bool = False
    """Check everything, print the runs with hours and disk, and run nothing."""
    status: bool = False
    """Print how far each run is, from the records alone, and run nothing."""
    launcher: Literal["local", "slurm"] = "local"
    """Run here, or hand the runs to SLURM as arrays that wait for each other."""
    trust_pickle: bool = False
    """Read the pickles that the file declares as trusted, which can run any code while they are read, and call the
    functions that it names (augment_function)."""
    at_once: int = 1
    """Runs side by side on this machine, each with its share of the cores and one of the GPUs in turn."""


@dataclass(frozen=True)
class Reading:
    """How recorded configurations are read."""

    later: Later
    """Gives one of before the fields of today."""
    at_depth: AtDepth
    """Gives what follows from the depth as the recipe's depth has it."""


def trainer(specs: Sequence[TaskSpec], reading: Reading) -> Tool:
    """Return the tool that trains some tasks."""

    def run(args: TrainArgs, config: Any) -> int:
        try:
            config = with_length(args, config)
        except ValueError as error:
            return fail(error)
        return start(args, config, specs)

    def settings(args: TrainArgs, config: Any) -> dict[str, Any]:
        return as_json(spec_for(specs, config).followed(with_length(args, config), args.recipe))

    modules = [spec.module for spec in specs if spec.module is not None]

    return Tool(
        args=TrainArgs,
        recipes=recipes_of(specs),
        run=run,
        settings=settings,
        later=reading.later,
        at_depth=reading.at_depth,
        metric=specs[0].primary,
        preload=partial(preload, *modules, "engine.training.loop"),
    )


def preload(*modules: str) -> None:
    """Import what runs need before they are forked, and leave CUDA to them."""
    from engine.device import cuda_untouched

    with cuda_untouched():
        for module in modules:
            import_module(module)


def prober(
    module: ModuleType,
    specs: Sequence[TaskSpec],
    reading: Reading,
    *,
    leading: Callable[[Any], str],
    args: type[Any] = ProbeArgs,
) -> Tool:
    """Return a tool that probes, each record in a folder called as its task; `leading` is that of the last record."""
    records = tuple(spec.name for spec in specs)

    def run(args: Any, config: Any) -> int:
        """Probe anew where a probe was cut off: its features are cached, and half of its results are refused."""
        for name in records:
            shutil.rmtree(args.out / name, ignore_errors=True)
        code: int = module.carry_out(args, config)
        return code

    return Tool(
        args=args,
        recipes=module.RECIPES,
        run=run,
        settings=lambda _, config: {**as_json(config), RESULT: leading(config)},
        later=reading.later,
        at_depth=reading.at_depth,
        metric=specs[0].primary,
        records=records,
        preload=partial(preload, module.RUN),
    )


@dataclass(frozen=True, kw_only=True)
class _Scenes:
    """Flags of make_scenes beside those of the scenes."""

    out: Path


def _make_scenes(args: _Scenes, config: ScenesConfig) -> int:
    return make_scenes.carry_out(make_scenes.Arguments(out=args.out, scenes=config))


def tools_for(tasks: TaskTable) -> dict[str, Tool]:
    """Return the tools that a study of these tasks calls."""
    reading = Reading(partial(with_later_fields, tasks), partial(at_recipes_depth, tasks))
    trained = dict.fromkeys(spec.tool for spec in tasks.values() if spec.module is not None)
    return {
        "make_scenes": Tool(args=_Scenes, recipes={"": ScenesConfig}, run=_make_scenes),
        "hold_out": Tool(args=hold_out.Args, run=lambda args, _: hold_out.carry_out(args)),
        **{tool: trainer(of_tool(tasks, tool), reading) for tool in trained},
        "probe": prober(
            probe,
            of_tool(tasks, "probe"),
            reading,
            leading=lambda config: f"depth{config.backbone.depth:02d}_{config.pooling}",
        ),
        "probe_dense": prober(probe_dense, of_tool(tasks, "probe_dense"), reading, leading=lambda c: c.features),
        "in_context": prober(
            in_context, of_tool(tasks, "in_context"), reading, leading=lambda c: c.leading, args=in_context.Args
        ),
    }


TOOLS = tools_for(TASKS)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all done, 1 something failed, 130 interrupted."""
    began = time.monotonic()
    args = parse(Args, argv, doc=__doc__)
    try:
        if args.at_once < 1:
            raise ValueError(f"--at-once {args.at_once}: give 1 or more runs side by side.")
        if args.at_once > 1 and args.launcher == "slurm":
            raise ValueError(
                "--at-once is for --launcher local; `cluster: {at_once: N}` in the study file says it for SLURM."
            )
        made = prepare(
            args.study,
            TOOLS,
            studies=STUDIES,
            out=args.out,
            root=args.data,
            seeds=args.seeds,
            trust_pickle=args.trust_pickle,
        )
        if args.status:
            print(status_text(made.study.name, made.runs))
            return 0
        made.refuse()
        if args.dry_run:
            print(dry_run_text(made.study.name, made.runs, made.out))
            if (why := Suite(TOOLS, Console()).others(made.runs)) is not None:
                print(f"WARNING: {why}")
            return 0
        if args.launcher == "slurm":
            print(_handed_in(made, args.trust_pickle))
            return 0
        return _here(made, args.at_once, shlex.join(argv or sys.argv[1:]), began)
    except (ValueError, OSError) as error:
        return fail(error)


def _here(made: Prepared, at_once: int, command: str, began: float) -> int:
    from benchmark.report.closing import closing_report

    suite = Suite(TOOLS, Console(), at_once=at_once)
    with locked(made.out) as note:
        _say(note)
        made = made.fetch_weights()
        made.write_plan()
        outcomes = suite.carry_out(made.runs)
        print(closing_report(made.out, outcomes, TASKS, seconds=time.monotonic() - began))
    if suite.stopped:
        print(f"Stopped. Continue with: python tools/run_benchmark.py {command}")
    return exit_code(outcomes, stopped=suite.stopped)


def _handed_in(made: Prepared, trust_pickle: bool) -> str:
    from tools.study_job import StudyJob  # which imports this module where SLURM runs it

    job = StudyJob(
        out=made.out.resolve(), root=made.root.resolve(), cluster=made.study.cluster, trust_pickle=trust_pickle
    )
    # beside the jobs of an earlier call, which hold the folder in the same way, but beside no other such command
    with locked(made.out, shared=True) as note, locked(made.out / SLURM_FOLDER):
        _say(note)
        made = made.fetch_weights()
        made.write_plan()
        return submit(made, Suite(TOOLS, Console()), job)


def _say(note: str | None) -> None:
    if note is not None:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
