"""From the flags that all training tools share to a finished run."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import tyro

from engine.config import Duration, RunConfig
from engine.loop import EXIT_CODES, fit
from engine.seeding import derive, seed_all
from engine.task import Task


class TaskConfig(Protocol):
    """The configuration of one task: a frozen dataclass with a `run`."""

    @property
    def run(self) -> RunConfig: ...


C = TypeVar("C", bound=TaskConfig)
Build = Callable[..., Task]  # build(config, *, data: Path, init: Path | None) -> Task


@dataclass(frozen=True, kw_only=True)
class TrainArgs:
    """Flags shared by the training tools."""

    recipe: Annotated[str, tyro.conf.Positional]
    """Name of the recipe."""
    data: Path
    """Folder of the data set."""
    out: Path
    """Folder that the run writes to; it must be new, or the run's own with --resume."""
    init: Path | None = None
    """Backbone checkpoint to start from; absent means random weights."""
    seed: int | None = None
    """Seed of everything random; the recipe's unless given."""
    steps: int | None = None
    """Train this many optimiser steps instead of the recipe's length."""
    epochs: float | None = None
    """Train this many passes over the training images instead of the recipe's length."""
    batch_size: int | None = None
    """Images per optimiser step over all devices; the learning rate follows by the recipe's rule."""
    workers: int | None = None
    """Processes per device that load data."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""


def choose_recipe(recipes: dict[str, Callable[[], C]], name: str) -> C:
    """Return the named recipe's configuration. Raises ValueError that lists the names."""
    if name not in recipes:
        raise ValueError(f"no recipe is called {name!r}; there are: {', '.join(sorted(recipes))}.")
    return recipes[name]()


def override(config: C, args: TrainArgs) -> C:
    """Return the configuration with the flags that were given put in place of the recipe's values."""
    if args.steps is not None and args.epochs is not None:
        raise ValueError("--steps and --epochs were both given; the run has one length.")
    run = config.run
    if args.steps is not None:
        run = replace(run, length=Duration(args.steps, "steps"))
    if args.epochs is not None:
        run = replace(run, length=Duration(args.epochs, "epochs"))
    for name in ("seed", "batch_size", "workers"):
        if (value := getattr(args, name)) is not None:
            run = replace(run, **{name: value})
    return replace(config, run=run)  # type: ignore[type-var]


def train(args: TrainArgs, config: C, build: Build) -> int:
    """Build the task, train it, and return the exit code: 0 done, 1 failed, 130 or 143 interrupted.

    `config` has the flags applied already (`override`). What a user can cause is said in one line without a traceback.
    """
    try:
        seed_all(derive(config.run.seed, "weights"))
        task = build(config, data=args.data, init=args.init)
        record = fit(task, config, recipe=args.recipe, out=args.out, resume=args.resume)
    except (ValueError, OSError) as error:
        return fail(error)
    return EXIT_CODES[record.status]


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr (the traceback too for what is no user's mistake) and return 1."""
    if not isinstance(error, ValueError | OSError):
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1


def parse(cls: type[Any], argv: list[str] | None, *, doc: str | None) -> Any:
    """Return the command line as a dataclass; --help shows `doc` and the docstring of every field."""
    return tyro.cli(cls, args=argv, description=doc)
