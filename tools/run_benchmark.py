"""Carry out a study: pre-train, transfer to every task from every arm, and print one table.

    python tools/run_benchmark.py demo
    python tools/run_benchmark.py demo --out runs/demo --seeds 0 1 2

The same command again skips what is recorded and resumes what was interrupted. A run that fails does not stop the
others; the exit code is then 1 (130 after Ctrl-C).
"""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmark.matrix import choose_study
from benchmark.report import closing_report
from benchmark.suite import Suite, Tool, exit_code
from classification.recipes import RECIPES as CLASSIFICATION
from detection.recipes import RECIPES as DETECTION
from engine.config import as_json
from engine.launch import TrainArgs, choose_recipe, fail, override, parse
from pretraining.recipes import RECIPES as PRETRAINING
from segmentation.recipes import RECIPES as SEGMENTATION
from tools import make_scenes, pretrain, train_cls, train_det, train_seg


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of a study."""

    study: Annotated[str, tyro.conf.Positional]
    """Name of the study."""
    out: Path | None = None
    """Folder for runs, logs and tables; runs/STUDY unless given."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the transfer runs."""


def _trainer(main: Callable[[list[str]], int], args: type[Any], recipes: dict[str, Callable[[], Any]]) -> Tool:
    def config(argv: list[str]) -> dict[str, Any]:
        given = parse(args, argv, doc=None)
        return as_json(override(choose_recipe(recipes, given.recipe), given))

    return Tool(main=main, config=config)


TOOLS = {
    "make_scenes": Tool(main=make_scenes.main, config=None),
    "pretrain": _trainer(pretrain.main, TrainArgs, PRETRAINING),
    "train_cls": _trainer(train_cls.main, TrainArgs, CLASSIFICATION),
    "train_det": _trainer(train_det.main, train_det.Args, DETECTION),
    "train_seg": _trainer(train_seg.main, TrainArgs, SEGMENTATION),
}


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all done, 1 something failed, 130 interrupted."""
    start = time.monotonic()
    args = parse(Args, argv, doc=__doc__)
    out = args.out or Path("runs") / args.study
    console = Console()
    suite = Suite(TOOLS, console)
    try:
        outcomes = suite.carry_out(choose_study(args.study, out, args.seeds), out)
        print(closing_report(out, outcomes, seconds=time.monotonic() - start))
    except (ValueError, OSError) as error:
        return fail(error)
    if suite.stopped:
        print(f"Stopped. Continue with: python tools/run_benchmark.py {shlex.join(argv or sys.argv[1:])}")
    return exit_code(outcomes, stopped=suite.stopped)


if __name__ == "__main__":
    raise SystemExit(main())
