"""Resumable checkpoints: model, optimiser and progress, `checkpoints/step-00000100.pt`, the last k kept.

The random state is no part of them: every random number is a function of the seed and the step (`seeding`). A
checkpoint holds whole tensors, however the run that wrote it was spread over processes. PyTorch writes a checksum for
every part of a file and does not look at it when it reads; `read_checkpoint` does.
"""

import copy
import zipfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from engine.records.record import Evaluation
from engine.training.ema import EMA
from engine.training.processes import from_first
from engine.training.sharding import moments_like, shards_like, whole_tensors
from files.naming import inside
from files.typed import from_json
from files.writing import replacing

FOLDER = "checkpoints"


@dataclass
class Progress:
    """How far a run has come; everything that its record sums over sessions."""

    step: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """`{"step": int, "metrics": {name: value}}`"""
    losses: dict[str, float] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """path -> reason"""
    train_seconds: float = 0.0
    wait_seconds: float = 0.0
    total_seconds: float = 0.0
    started: str = ""
    precision: str = ""
    """What the steps were computed in, as a record names it; empty where the checkpoint does not know."""
    metrics_size: int = 0
    """Bytes of metrics.csv; 0 where the checkpoint does not know."""
    metrics_sha256: str = ""
    """Of these bytes."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training changes, and a checkpoint therefore holds."""

    model: nn.Module
    optimizer: Optimizer
    ema: EMA | None = None
    scaler: GradScaler | None = None
    """Of float16 training."""

    def state(self, *, keep: bool = True) -> dict[str, Any]:
        """Return it as whole tensors on the CPU or the device.

        Every process of a sharded run must ask; where `keep` is False it gets a part.
        """
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            state["average"] = self.ema.values
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        return whole_tensors(state, keep=keep)

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Take over what a checkpoint holds. Raises ValueError where it does not fit or lacks a part."""
        for key, part, name in (("average", self.ema, "EMA of the weights"), ("scaler", self.scaler, "scaler")):
            if part is not None and key not in state:
                raise ValueError(f"{path}: holds no {name}, which this run needs; give another --out.")
        _fill(self.model, state["model"], path)
        try:
            self.optimizer.load_state_dict(moments_like(state["optimizer"], self.optimizer))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path}: its optimizer is of another model, or of a version that grouped parameters otherwise "
                f"(CHANGELOG.md): {error}"
            ) from error
        if self.ema is not None:
            self.ema.take(shards_like(state["average"], self.ema.values), path)
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first.

    Raises ValueError where checkpoints/ or one of them is a link out of `out`: it may lead to those of another run.
    """
    found = sorted(inside(out, FOLDER, source=out).glob("step-*.pt"))
    for path in found:
        inside(out, f"{FOLDER}/{path.name}", source=out)
    return found


class Saver:
    """Writes the checkpoints of a run, behind it where that is wanted: the state is copied, and a thread writes it.

    One is written at a time. What fails behind the run is raised by the next call.
    """

    def __init__(self, out: Path, *, keep_last: int, behind: bool) -> None:
        """`keep_last` is the number of checkpoints to keep."""
        self.out, self.keep_last, self.behind = out, keep_last, behind
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(self, state: dict[str, Any], progress: Progress) -> None:
        """Have the checkpoint written. Raises as `save`."""
        self.finish()
        if not self.behind:
            save(self.out, state=state, progress=progress, keep_last=self.keep_last)
            return
        kept = tree_map(lambda v: v.detach().to("cpu", copy=True) if isinstance(v, Tensor) else copy.deepcopy(v), state)
        self._writing = self._thread.submit(
            save, self.out, state=kept, progress=copy.deepcopy(progress), keep_last=self.keep_last
        )

    def finish(self) -> None:
        """Wait until what was saved is on the disk. Raises what its writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait as `finish`, for a run that has failed otherwise, and raise nothing."""
        self._thread.shutdown(wait=True)


def save(out: Path, *, state: dict[str, Any], progress: Progress, keep_last: int) -> Path:
    """Write a checkpoint atomically, then delete all but the last `keep_last`; return its path.

    Raises as `checkpoints`, before anything is written.
    """
    checkpoints(out)
    path = out / FOLDER / f"step-{progress.step:08d}.pt"
    with replacing(path) as temporary:
        torch.save({**state, "progress": progress.__dict__}, temporary)
    for old in checkpoints(out)[:-keep_last]:
        old.unlink()
    return path


def load_model(path: Path, model: nn.Module) -> int:
    """Put a checkpoint's weights into the model, their EMA where the run kept one, and return its step.

    Raises ValueError where the file is damaged, or of another model.
    """
    try:
        state = read_checkpoint(path, _parameters(model))
    except ValueError as error:
        raise ValueError(f"{error} Go on with the run by --resume, which makes it again.") from error
    ema: dict[str, Tensor] = state.get("average", {})
    _fill(model, state["model"] | ema, path)
    return int(state["progress"]["step"])


def load_latest(out: Path, trained: Trained, fabric: Fabric) -> tuple[Progress | None, list[str]]:
    """Restore the newest checkpoint that can be used; return its progress (None where there is none) and warnings.

    One that cannot be used is renamed. Raises ValueError where the one to be used is of another model.
    """
    states: dict[Path, dict[str, Any]] = {}
    names = _parameters(trained.model)

    def newest() -> tuple[Path | None, list[str]]:
        warnings = []
        for path in reversed(checkpoints(out)):
            try:
                states[path] = read_checkpoint(path, names)
            except (ValueError, OSError) as error:
                broken = path.with_name(f"{path.name}.broken")
                path.rename(broken)
                warnings.append(f"{error} Going back to the one before; it is now called {broken.name}.")
                continue
            return path, warnings
        return None, warnings

    path, warnings = from_first(fabric, newest)  # the others must not see a file vanish
    if path is None:
        return None, warnings
    state = states.pop(path, None) or read_checkpoint(path, names)
    trained.restore(state, path)
    return Progress(**state["progress"]), warnings


def read_checkpoint(path: Path, parameters: Iterable[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, whose weights called as in `parameters` are finite.

    Raises ValueError that names the file for one that is damaged, is none, or holds weights that are not finite.
    """
    if problem := _damage(path):
        raise ValueError(f"{path}: not a readable checkpoint ({problem}).")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check(state, parameters)
    except MemoryError:  # of a file that is whole
        raise
    except Exception as error:  # unpickling raises nearly anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason}).") from error
    return cast(dict[str, Any], state)


def _damage(path: Path) -> str | None:
    """Return what is wrong with the file as a whole, None where every part has its checksum."""
    if not path.stat().st_size:
        return "it is empty"
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except MemoryError:
        raise
    except OSError as error:
        return f"{error.strerror}"
    except Exception as error:  # of damaged tables zipfile raises nearly anything
        return f"it is damaged or truncated: {error}"
    return None if bad is None else f"it is damaged: {bad} is not what was written"


def _check(state: Any, parameters: Iterable[str]) -> None:
    """Raise ValueError where a part is missing or is not what it must be."""
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__} in place of model, optimizer and progress")
    for name in ("model", "optimizer", "progress"):
        if not isinstance(state.get(name), dict):
            raise ValueError(f"it holds no {name}")
    if not {"state", "param_groups"} <= state["optimizer"].keys():
        raise ValueError("its optimizer holds no state or no groups of parameters")
    progress = from_json(Progress, state["progress"])
    if progress.step < 0:
        raise ValueError(f"its step is {progress.step}")
    for evaluation in progress.evaluations:
        from_json(Evaluation, evaluation)
    names = set(parameters)
    for part in ("model", "average"):
        for name, value in state.get(part, {}).items():
            if not isinstance(value, Tensor):
                raise ValueError(f"its {part} has {name}, which is no tensor")
            if name in names and not bool(torch.isfinite(value).all()):
                raise ValueError(f"its {part} is not finite in {name}")
    for number, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and bool(torch.isnan(value).any()):
                raise ValueError(f"its optimizer has NaN in {name} of parameter {number}")


def _parameters(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def _fill(model: nn.Module, weights: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(shards_like(weights, model.state_dict()))
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit the model: {error}") from error
