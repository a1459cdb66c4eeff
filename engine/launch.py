"""From the flags that all training tools share to a finished run."""

import difflib
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import tyro

from backbones.declaration import InitialWeights
from engine.config import Duration, Precision, RunConfig
from engine.evaluation import RESULTS_NAME
from engine.finite import NonFiniteError
from engine.identity import NAME as IDENTITY_NAME
from engine.image_file import allow_megapixels
from engine.init_flags import InitFlags
from engine.loop import EXIT_CODES, fit
from engine.metrics_file import CSV_NAME
from engine.processes import processes
from engine.recipe import departures
from engine.record import RECORD_NAME, WEIGHTS_NAME
from engine.seeding import derive, seed_all
from engine.task import Task
from files.naming import refuse_overwriting, refuse_within


class TaskConfig(Protocol):
    """The configuration of one task: a frozen dataclass with a `run`."""

    @property
    def run(self) -> RunConfig: ...


C = TypeVar("C", bound=TaskConfig)
PARTS = ("augment",)  # of a task's configuration: their fields have flags as its own have
# what a run writes to its folder: of every task, and of some
RUN_FILES = (
    *(RECORD_NAME, IDENTITY_NAME, WEIGHTS_NAME, CSV_NAME, RESULTS_NAME),
    *("backbone.safetensors", "tokenizer.safetensors", "train_list.txt", "detections.json", "per_class.csv"),
)
Build = Callable[..., Task]  # build(config, *, data: Path, init: InitialWeights | None) -> Task


@dataclass(frozen=True, kw_only=True)
class TrainArgs(InitFlags):
    """Flags shared by the training tools."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe, from the list above."""
    data: Path
    """Folder of the data set."""
    out: Path
    """Folder that the run writes to; it must be new, or the run's own with --resume."""
    seed: int | None = None
    """Seed of everything random; the recipe's unless given."""
    steps: int | None = None
    """Train this many optimiser steps instead of the recipe's length."""
    epochs: float | None = None
    """Train this many passes over the training images instead of the recipe's length."""
    batch_size: int | None = None
    """Images per optimiser step over all devices; the learning rate follows by the recipe's rule."""
    base_lr: float | None = None
    """Learning rate at the recipe's base batch size, instead of the recipe's."""
    max_per_device: int | None = None
    """Images that a device takes at once: the batch of the recipe is reached by accumulating micro-batches."""
    workers: int | None = None
    """Processes per device that load data."""
    max_unreadable: int | None = None
    """Distinct unreadable images after which the run stops; the recipe's unless given."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; 179 unless given. A loader process takes 7 to 16 bytes per pixel."""
    precision: Precision | None = None
    """Arithmetic of the forward pass; the recipe's unless given."""
    ema_decay: float | None = None
    """Evaluate and export the exponential moving average of the weights with this decay per step."""
    activation_checkpointing: bool = False
    """Keep one tensor per ViT block and compute the rest again in the backward pass."""
    compile: bool = False
    """Compile the transformer blocks with torch.compile."""
    strategy: Literal["ddp", "fsdp"] | None = None
    """What several processes hold: each the whole model (ddp), or a share of weights, gradients and moments (fsdp)."""
    arm: str | None = None
    """What the record and tables call the initial weights; the family of the file unless given."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""


def choose_recipe(recipes: Mapping[str, Callable[[], C]], name: str) -> C:
    """Return the named recipe's configuration. Raises ValueError that lists the names."""
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=3)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no recipe is called {name!r}; there are: {', '.join(sorted(recipes))}.{meant}")
    return recipes[name]()


def override(config: C, args: TrainArgs) -> C:
    """Return the configuration with the flags that were given put in place of the recipe's values.

    A tool's own flags carry the names of fields of the task's configuration, of one of its PARTS or of the optimiser.
    Raises ValueError for one that this configuration does not have.
    """
    if args.steps is not None and args.epochs is not None:
        raise ValueError("--steps and --epochs were both given; the run has one length.")
    run = config.run
    if args.steps is not None:
        run = replace(run, length=Duration(args.steps, "steps"))
    if args.epochs is not None:
        run = replace(run, length=Duration(args.epochs, "epochs"))
    if args.activation_checkpointing:
        run = replace(run, activation_checkpointing=True)
    if args.compile:
        run = replace(run, compile=True)
    for name in (
        "seed",
        "batch_size",
        "workers",
        "max_unreadable",
        "max_megapixels",
        "precision",
        "ema_decay",
        "strategy",
    ):
        if (value := getattr(args, name)) is not None:
            run = replace(run, **{name: value})
    if args.base_lr is not None:
        run = replace(run, optim=replace(run.optim, base_lr=args.base_lr))
    if args.max_per_device is not None:
        run = replace(run, accumulate=micro_batches(run.batch_size, args.max_per_device, processes()))
    own = [field for field in fields(args) if field.name not in {f.name for f in fields(TrainArgs)}]
    given = {field.name: value for field in own if (value := getattr(args, field.name)) != field.default}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    changed = _taken(plain, config)
    changed |= {name: replace(part, **_taken(plain, part)) for name in PARTS if (part := getattr(config, name, None))}
    run = replace(run, optim=replace(run.optim, **_taken(plain, run.optim)))
    if plain:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(plain))
        raise ValueError(f"recipe {args.recipe!r} has no use for {flags}; another recipe of this tool takes it.")
    return replace(config, run=run, **changed)  # type: ignore[type-var]


def _taken(given: dict[str, Any], part: Any) -> dict[str, Any]:
    """Return what of `given` is called as a field of a dataclass, and take it out of `given`."""
    return {name: given.pop(name) for name in sorted(given.keys() & {f.name for f in fields(part)})}


def micro_batches(batch_size: int, most: int, devices: int) -> int:
    """Return the fewest micro-batches of equal size with at most `most` images on each of `devices` devices.

    Raises ValueError where the batch cannot be shared.
    """
    if most < 1:
        raise ValueError(f"--max-per-device {most}: it must be at least 1.")
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} images cannot be shared by {devices} processes; start a number of processes that "
            "divides it, or give another --batch-size (the learning rate follows by the recipe's rule)."
        )
    share = batch_size // devices
    return next(count for count in range(1, share + 1) if share % count == 0 and share // count <= most)


def run_tool(
    cls: type[TrainArgs],
    argv: list[str] | None,
    *,
    doc: str | None,
    recipes: Mapping[str, Callable[[], TaskConfig]],
    build: Build,
    adopt: Callable[[Any, InitialWeights | None], Any] | None = None,
) -> int:
    """Parse the command line, train, and return the exit code: what every training tool's `main` does.

    `adopt` gives the configuration the architecture of the initial weights where they declare so; without it that
    declaration is refused.
    """
    names = "\n".join(f"  {name}: {(recipe.__doc__ or '-').splitlines()[0]}" for name, recipe in recipes.items())
    args = parse(cls, argv, doc=f"{(doc or '').strip()}\n\nRecipes:\n{names}")
    try:
        refuse_over_inputs(args)
        config, init = override(choose_recipe(recipes, args.recipe), args), args.weights()
        if adopt is not None:
            config = adopt(config, init)
        elif args.init_architecture != "recipe":
            raise ValueError(f"--init-architecture {args.init_architecture}: this tool builds the recipe's ViT alone.")
    except (ValueError, OSError) as error:
        return fail(error)
    return train(args, config, build, departures=departures(recipes[args.recipe], config))


def train(args: TrainArgs, config: C, build: Build, *, departures: tuple[str, ...] = ()) -> int:
    """Build the task, train it, and return the exit code: 0 done, 1 failed, 130 interrupted (resumable).

    `config` has the flags applied already (`override`); `departures` is what they changed of the
    recipe. What a user can cause is said in one line without a traceback.
    """
    try:
        allow_megapixels(config.run.max_megapixels)
        seed_all(derive(config.run.seed, "weights"))
        task = build(config, data=args.data, init=args.weights())
        refuse_among_images(args.out, args.data, (task.facts.train_split, task.facts.val_split))
        record = fit(
            task, config, recipe=args.recipe, out=args.out, resume=args.resume, departures=departures, arm=args.arm
        )
    except (ValueError, OSError, NonFiniteError) as error:
        return fail(error)
    return EXIT_CODES[record.status]


def refuse_over_inputs(args: TrainArgs) -> None:
    """Raise ValueError where --out is the folder of the data, or has a file's name that another flag reads."""
    read = [value for f in fields(args) if f.name != "out" and isinstance(value := getattr(args, f.name), Path)]
    refuse_overwriting([args.out, *(args.out / name for name in RUN_FILES)], read)


def refuse_among_images(out: Path, data: Path, splits: Sequence[str]) -> None:
    """Raise ValueError where `out` is or lies in a folder of `data` that is called as a split, and so is searched.

    A run's folder of that name beside the splits is none of them.
    """
    top, here = Path(os.path.realpath(data)), Path(os.path.realpath(out))
    names = {Path(split).name for split in splits}
    between = [path for path in (here, *here.parents) if top in path.parents and path.name in names]
    refuse_within(out, [path for path in between if path.is_dir() and not (path / IDENTITY_NAME).exists()])


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr, its traceback too where MAE_TRANSFER_TRACEBACK is set, and return 1."""
    if os.environ.get("MAE_TRANSFER_TRACEBACK"):
        traceback.print_exception(error)
    text = str(error)
    if "DataLoader worker" in text:  # PyTorch wraps a worker's error into its whole traceback
        text = text.strip().splitlines()[-1].partition(": ")[2]
    print(f"error: {text}", file=sys.stderr)
    return 1


def parse(cls: type[Any], argv: list[str] | None, *, doc: str | None) -> Any:
    """Return the command line as a dataclass; --help shows `doc` and the docstring of every field.

    From here on names of files that are no UTF-8 are printed as the bytes they are.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    return tyro.cli(cls, args=argv, description=doc)
