"""From a command line to a finished run. torch is imported when a run begins, not for its help or its errors."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from backbones.weights.declaration import BACKBONE_NAME, InitialWeights
from backbones.weights.hub import is_remote
from engine.config import Duration, as_json, micro_batches
from engine.flags import HELP, HELP_ALL, leaves, parse_with_config
from engine.init_flags import InitFlags
from engine.recipe import departures, shortened, with_augment_source, with_short_warmup
from engine.records.metrics_file import CSV_NAME
from engine.records.record import IDENTITY_NAME, RECORD_NAME, WEIGHTS_NAME, RunRecord
from engine.records.results_file import RESULTS_NAME
from engine.spec import TaskSpec, recipes_of, spec_for
from engine.streams import prepare_streams
from engine.word_order import words_first
from files.naming import refuse_overwriting, refuse_within

# what a run writes to its folder: of every task, and of some
RUN_FILES = (
    *(RECORD_NAME, IDENTITY_NAME, WEIGHTS_NAME, CSV_NAME, RESULTS_NAME),
    *(BACKBONE_NAME, "tokenizer.safetensors", "train_list.txt", "detections.json", "per_class.csv"),
)


@dataclass(frozen=True, kw_only=True)
class TrainArgs(InitFlags):
    """Flags shared by the training tools."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe; --help lists them."""
    data: Path
    """Folder of the data set."""
    out: Path
    """Folder that the run writes to; it must be new, or the run's own with --resume."""
    steps: int | None = None
    """Train this many optimiser steps instead of the recipe's length."""
    epochs: float | None = None
    """Train this many passes over the training images instead of the recipe's length."""
    max_per_device: int | None = None
    """Images that a device takes at once: the batch of the recipe is reached by accumulating micro-batches."""
    arm: str | None = None
    """What the record and tables call the initial weights; the family of the file unless given."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    show: bool = False
    """Print the whole configuration that the flags make of the recipe, and in what it departs, as JSON, and run
    nothing; --data and --out are not asked for."""


def configured(argv: Sequence[str] | None, specs: Sequence[TaskSpec], *, doc: str | None) -> tuple[TrainArgs, Any]:
    """Return the flags of a training tool and the configuration that they make of the recipe.

    Raises ValueError for flags that contradict each other or the recipe.
    """
    args, config = parse_with_config(TrainArgs, recipes_of(specs), argv, doc=doc)
    return args, with_length(args, config)


def with_length(args: TrainArgs, config: Any) -> Any:
    """Return the configuration with the length and the micro-batches that the flags give it.

    Raises ValueError for two lengths, and a batch that the processes cannot share.
    """
    run = config.run
    if args.steps is not None and args.epochs is not None:
        raise ValueError("--steps and --epochs were both given; the run has one length.")
    if args.steps is not None:
        run = replace(run, length=Duration(args.steps, "steps"))
    if args.epochs is not None:
        run = replace(run, length=Duration(args.epochs, "epochs"))
    if args.max_per_device is not None:
        from engine.training.processes import processes

        run = replace(run, accumulate=micro_batches(run.batch_size, args.max_per_device, processes()))
    return replace(config, run=run)


def train(argv: Sequence[str] | None, specs: Sequence[TaskSpec], *, doc: str | None) -> int:
    """Parse the command line, train, and return the exit code: 0 done, 1 failed, 130 interrupted (resumable).

    What every training tool's `main` does; `specs` are the tasks that it trains. What a user can cause is said in one
    line without a traceback.
    """
    prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
    try:
        if "--show" in argv and not {*HELP, HELP_ALL} & {*argv}:
            return show(argv, specs, doc=doc)
        args, config = configured(argv, specs, doc=doc)
    except (ValueError, OSError) as error:
        return fail(error)
    return start(args, config, specs)


def show(argv: Sequence[str], specs: Sequence[TaskSpec], *, doc: str | None) -> int:
    """Print what a command line makes of its recipe; raises as `configured`."""
    args, config = parse_with_config(_Shown, recipes_of(specs), argv, doc=doc)
    config, spec = with_length(args, config), spec_for(specs, config)
    if args.init is not None and args.init_architecture == "file" and spec.transfers:
        config = adopted(args, config, spec, args.weights())
    else:
        config = spec.followed(config, args.recipe)
    config = with_augment_source(config)
    values = {"recipe": args.recipe, "departures": departures(spec.recipes[args.recipe], config)}
    print(json.dumps({**values, "config": as_json(config)}, indent=1))
    return 0


@dataclass(frozen=True, kw_only=True)
class _Shown(TrainArgs):
    """The same flags where nothing is run."""

    data: Path = Path()
    """Folder of the data set."""
    out: Path = Path()
    """Folder that the run would write to."""


def adopted(args: TrainArgs, config: Any, spec: TaskSpec, init: InitialWeights | None) -> Any:
    """Return the configuration with what initial weights or images decide of it, and what follows from all that is not
    the recipe's; raises as `TaskSpec.adopt`."""
    if spec.adopt is None:
        from backbones.weights.initial import with_architecture

        config = with_architecture(config, init)
    else:
        config = spec.adopt(config, init=init, data=args.data, out=args.out, resume=args.resume)
    return spec.followed(config, args.recipe)


def start(args: TrainArgs, config: Any, specs: Sequence[TaskSpec]) -> int:
    """Train with flags and the configuration that they make, and return the exit code, as `train`."""
    try:
        check_paths(args, config)
    except (ValueError, OSError) as error:
        return fail(error)
    return carry_out(args, config, spec_for(specs, config))


def carry_out(args: TrainArgs, config: Any, spec: TaskSpec) -> int:
    """Build the task, train it, and return the exit code; `config` has the flags in it."""
    from engine.training.loop import EXIT_CODES
    from engine.training.stop import NonFiniteError

    try:
        return EXIT_CODES[carried_out(args, config, spec).status]
    except (ValueError, OSError, NonFiniteError) as error:
        return fail(error)


def carried_out(args: TrainArgs, config: Any, spec: TaskSpec) -> RunRecord:
    """Build the task, train it, and return its record, completed or interrupted; `config` has the flags in it.

    Raises ValueError and OSError for what a user can cause, NonFiniteError where a loss is no number.
    """
    from engine.augment import with_augment
    from engine.device import device_named
    from engine.images.file import allow_megapixels
    from engine.training.loop import fit
    from engine.training.processes import processes
    from engine.training.seeding import derive, seed_all

    device_named(config.run.device, processes=processes())  # before anything is read
    init = args.weights()
    config = with_augment(adopted(args, config, spec, init))
    if config.run.augment_function is not None and not spec.augments:
        raise ValueError(f"--augment-function {config.run.augment_function}: {spec.name} applies none.")
    allow_megapixels(config.run.max_megapixels)
    seed_all(derive(config.run.seed, "weights"))
    trust = {"trust_tokenizer": args.trust_pickle} if spec.reads_tokenizer else {}
    task = spec.build(config, data=args.data, init=init, **trust)
    refuse_among_images(args.out, args.data, (task.facts.train_split, task.facts.val_split))
    recipe, asked = spec.recipes[args.recipe], config
    config = with_short_warmup(config, recipe(), images=len(task.train_data))
    changed = (*departures(recipe, config), *shortened(asked, config))
    return fit(task, config, recipe=args.recipe, out=args.out, resume=args.resume, departures=changed, arm=args.arm)


def check_paths(args: TrainArgs, config: Any) -> None:
    """Raise FileNotFoundError for data or weights that are not there, ValueError where --out is among what is read."""
    _check_there(args)
    refuse_over_inputs(args, config)


def _check_there(args: TrainArgs) -> None:
    """Raise FileNotFoundError for data or weights that are not there."""
    if not args.data.is_dir():
        raise FileNotFoundError(f"{args.data}: no such folder; --data is the folder of the data set.")
    if args.init is not None and not is_remote(args.init) and not args.init.exists():
        raise FileNotFoundError(f"{args.init}: no such file of weights; mend --init.")


def refuse_over_inputs(args: TrainArgs, config: Any) -> None:
    """Raise ValueError where --out is the folder of the data, or has a file's name that another flag reads."""
    read = [value for f in fields(args) if f.name != "out" and isinstance(value := getattr(args, f.name), Path)]
    read += [Path(leaf.default) for leaf in leaves(config) if leaf.is_file and leaf.default is not None]
    refuse_overwriting([args.out, *(args.out / name for name in RUN_FILES)], read)


def refuse_among_images(out: Path, data: Path, splits: Sequence[str]) -> None:
    """Raise ValueError where `out` is or lies in a folder of `data` that is called as a split, and so is searched; the
    split `.` is `data` itself.

    A run's folder of that name beside the splits is none of them.
    """
    top, here = Path(os.path.realpath(data)), Path(os.path.realpath(out))
    names = {Path(split).name for split in splits}
    between = [path for path in (here, *here.parents) if top in path.parents and path.name in names]
    between += [top] if "." in splits and top in here.parents else []
    refuse_within(out, [path for path in between if path.is_dir() and not (path / IDENTITY_NAME).exists()])


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr, its traceback too where MAE_TRANSFER_TRACEBACK is set, and return 1."""
    if os.environ.get("MAE_TRANSFER_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):  # the reader has left, and hears of nothing
        raise error
    text = str(error)
    if "DataLoader worker" in text:  # PyTorch wraps a worker's error into its whole traceback
        text = text.strip().splitlines()[-1].partition(": ")[2]
    print(f"error: {text}", file=sys.stderr)
    return 1


def parse(cls: type[Any], argv: list[str] | None, *, doc: str | None) -> Any:
    """Return the command line as a dataclass; --help shows `doc` and the docstring of every field.

    What tyro refuses is read once more with its words before its flags, and refused as that is written.
    """
    prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
    try:
        return tyro.cli(cls, args=argv, description=doc, console_outputs=False)
    except SystemExit:
        return tyro.cli(cls, args=words_first(cls, argv), description=doc)
