"""Continuing a pre-training run of the official MAE code: encoder, decoder and the state of AdamW.

Its `checkpoint-N.pth` holds `model`, `optimizer`, `epoch`, `scaler` and `args` (facebookresearch/mae, `util/misc.py`).
The optimiser knows parameters by number: first those without weight decay (vectors and biases), then the others, each
in the order of the model, whose frozen position tables are left out (timm's `add_weight_decay`). The published files
with a decoder (`mae_pretrain_*_full.pth`, `mae_visualize_*.pth`) hold `model` alone: they start at step 0.
"""

import pickle
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import isclose
from pathlib import Path, PosixPath
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from backbones.param_groups import ParamGroup
from backbones.sources.source import Renamed
from backbones.sources.wrappers import rename_unwrapped
from backbones.weights.loader import LoadReport
from backbones.weights.reader import open_weight_file, take_weights
from engine.config import RunConfig
from engine.records.record import IDENTITY_NAME as IDENTITY
from engine.training import resume
from engine.training.ema import EMA
from engine.training.optim import build_optimizer
from engine.training.resume import Progress, Trained
from pretraining.mae.model import MaskedAutoencoder

FROZEN = ("pos_embed", "decoder_pos_embed")
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OfficialRun:
    """What the file holds, under our names."""

    path: Path
    digest: Callable[[], str] = field(repr=False)
    model: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    """AdamW's `step`, `exp_avg` and `exp_avg_sq` by name; empty where the file holds no optimiser."""
    epochs: int
    """Passes done."""
    arguments: dict[str, Any]
    """Of the command line; empty where the file holds none that can be read."""
    scaler: dict[str, Any] | None
    """Of float16 training."""


def read_official(path: Path) -> OfficialRun:
    """Return a run of the official code. Raises ValueError or FileNotFoundError where the file holds no such thing."""
    opened = open_weight_file(path)
    tensors = take_weights(opened, entries=("model",)).tensors
    opened.check()
    try:
        official = rename_unwrapped(_with_decoder, tensors).state
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    content: Mapping[str, Any] = opened.content if isinstance(opened.content, Mapping) else {}
    optimizer, scaler = content.get("optimizer"), content.get("scaler")
    moments = _moments(path, official, optimizer) if isinstance(optimizer, Mapping) else {}
    return OfficialRun(
        path=path,
        digest=opened.digest,
        model={_ours(name): tensor for name, tensor in official.items()},
        moments=moments,
        epochs=int(content["epoch"]) + 1 if moments and "epoch" in content else 0,
        arguments=_arguments(path),
        scaler=dict(scaler) if isinstance(scaler, Mapping) and scaler else None,
    )


def put_into(found: OfficialRun, model: MaskedAutoencoder, run: RunConfig, *, images: int) -> LoadReport:
    """Load encoder and decoder strictly and return the report, which says from where training goes on.

    Raises ValueError where the model is another one, where it predicts other targets or trains what the file's run
    kept fixed, or where no step is left.
    """
    expected = model.state_dict()
    odd = sorted(found.model.keys() ^ expected.keys())
    odd += [n for n, t in found.model.items() if n in expected and t.shape != expected[n].shape]
    if odd:
        raise ValueError(
            f"{found.path}: its model is not the recipe's: {len(odd)} parameters differ in name or shape "
            f"({', '.join(odd[:5])}). Take the recipe of its ViT, decoder and image size."
        )
    normalised = found.arguments.get("norm_pix_loss")
    if normalised is not None and bool(normalised) != model.target.normalise:
        raise ValueError(
            f"{found.path}: was trained with norm_pix_loss={normalised}, and this run's target is another; add "
            f"--target {'normalised' if normalised else 'pixels'}."
        )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if found.moments and (new := sorted(trained - found.moments.keys())):
        raise ValueError(
            f"{found.path}: has no state of AdamW for {', '.join(new)}, which its run kept fixed and this one would "
            "train; leave --position and --decoder-position at sincos."
        )
    step, total = (
        first_step(found, run, images=images),
        run.length.steps(batch_size=run.batch_size, dataset_size=images),
    )
    if step >= total:
        raise ValueError(
            f"{found.path}: has {found.epochs} epochs behind it, and the run is over after {run.length.value:g} "
            f"{run.length.unit}; nothing is left to train. Give --epochs."
        )
    model.load_state_dict(found.model)
    state = f"{len(found.moments)} states of AdamW" if found.moments else "no optimiser state, so AdamW starts anew"
    return LoadReport(
        path=str(found.path),
        source="mae",
        digest=found.digest,
        loaded=tuple(sorted(found.model)),
        notes=(
            f"encoder and decoder, and {state}; training goes on at step {step} of {total}",
            *_changes(found, model, run),
        ),
    )


def first_step(found: OfficialRun, run: RunConfig, *, images: int) -> int:
    """Return the step that is next: the epochs that the file has behind it, in steps of this run."""
    return -(-found.epochs * images // run.batch_size)


def write_start(
    out: Path, found: OfficialRun, model: MaskedAutoencoder, run: RunConfig, *, groups: list[Any], images: int
) -> Path | None:
    """Write the checkpoint in `out` that the run goes on from, and return its path; None where it is under way.

    `model` holds the file's weights already (`put_into`) and `groups` are the task's.
    """
    if (out / IDENTITY).exists():
        return None
    optimizer = build_optimizer(groups, run.optim, peak_lr=run.optim.lr(run.batch_size))
    for name, parameter in _named(groups):
        if found.moments:
            optimizer.state[parameter] = found.moments[name]
    ema = None if run.ema_decay is None else EMA(model, run.ema_decay)
    state = Trained(model=model, optimizer=optimizer, ema=ema).state()
    if run.precision == "16-mixed":
        # a run without float16, and a published file, have none: it starts anew; on a CPU its defaults can be had too
        state["scaler"] = found.scaler or GradScaler("cpu").state_dict()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    progress = Progress(step=first_step(found, run, images=images), started=started)
    return resume.save(out, state=state, progress=progress, keep_last=run.keep_last)


def _with_decoder(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors as they are, in their order. Raises ValueError where there is no decoder among them."""
    if "decoder_pred.weight" not in tensors:
        raise ValueError(
            "holds no decoder (decoder_pred and others), so pre-training cannot go on from it. Start a new "
            "run from its encoder with --init FILE --init-source mae (own, for a backbone.safetensors), or give the "
            "file with the decoder; a run of this project goes on with --resume."
        )
    return Renamed(state=dict(tensors))


def _named(groups: list[ParamGroup]) -> list[tuple[str, torch.nn.Parameter]]:
    return [pair for group in groups for pair in zip(group.names, group.params, strict=True)]


def _ours(name: str) -> str:
    return name if name == "mask_token" or name.startswith("decoder_") else f"encoder.{name}"


def _moments(path: Path, model: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Return AdamW's state by our names. Raises ValueError where it does not belong to the model."""
    trained = [name for name in model if name not in FROZEN]
    free = [name for name in trained if model[name].ndim == 1 or name.endswith(".bias")]
    groups = (free, [name for name in trained if name not in set(free)])
    numbers = [list(group["params"]) for group in optimizer["param_groups"]]
    if [len(n) for n in numbers] != [len(g) for g in groups]:
        raise ValueError(
            f"{path}: its optimiser has groups of {[len(n) for n in numbers]} parameters, where the official code has "
            f"{len(free)} without weight decay and {len(groups[1])} with it; it is of another code."
        )
    moments = {}
    for names, indices in zip(groups, numbers, strict=True):
        for name, index in zip(names, indices, strict=True):
            state = optimizer["state"].get(index, {})
            if any(key not in state or state[key].shape != model[name].shape for key in MOMENTS) or "step" not in state:
                raise ValueError(
                    f"{path}: its optimiser has no state that fits {name} {tuple(model[name].shape)}; it is of another "
                    "code, or was saved before the first step."
                )
            # a number in files of PyTorch before 1.12
            step = torch.as_tensor(state["step"], dtype=torch.float32)
            moments[_ours(name)] = {"step": step, **{key: state[key] for key in MOMENTS}}
    return moments


def _arguments(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([Namespace, PosixPath]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return {}  # arguments of another kind; that nothing was compared is said in the notes
    arguments = content.get("args")
    return vars(arguments) if isinstance(arguments, Namespace) else {}


def _changes(found: OfficialRun, model: MaskedAutoencoder, run: RunConfig) -> list[str]:
    """Return a line for each setting that the file was trained with and this run is not."""
    given = found.arguments
    if not given:
        return ["the file holds no arguments that can be read, so they were not compared with the recipe's"]
    patches = model.encoder.architecture.grid[0] * model.encoder.architecture.grid[1]
    batch = given.get("batch_size", 0) * given.get("accum_iter", 1) * given.get("world_size", 1)
    compared: list[tuple[str, Any, Any]] = [
        ("batch", batch or None, run.batch_size),
        ("weight_decay", given.get("weight_decay"), run.optim.weight_decay),
        ("lr", given.get("lr"), run.optim.lr(run.batch_size)),
        ("visible patches", _kept(patches, given.get("mask_ratio")), model.kept),
        ("epochs", given.get("epochs"), run.length.value if run.length.unit == "epochs" else None),
        ("warmup_epochs", given.get("warmup_epochs"), _epochs(run)),
    ]
    changed = [(name, old, new) for name, old, new in compared if None not in (old, new) and not isclose(old, new)]
    return [f"{name}: the file's run had {old}, this one has {new}" for name, old, new in changed]


def _kept(patches: int, ratio: float | None) -> int | None:
    return None if ratio is None else int(patches * (1 - ratio))


def _epochs(run: RunConfig) -> float | None:
    return run.schedule.warmup.value if run.schedule.warmup.unit == "epochs" else None
