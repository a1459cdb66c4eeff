"""Resumable checkpoints: model, optimiser and progress, `checkpoints/step-00000100.pt`, the last k kept.

The random state is no part of them: every random number is a function of the seed and the step (engine.seeding). A
checkpoint holds whole tensors, however the run that wrote it was spread over processes.
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from engine.average import Average
from engine.sharding import shard_state, shards_like, whole_tensors
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training changes, and a checkpoint therefore holds."""

    model: nn.Module
    optimizer: Optimizer
    average: Average | None = None
    scaler: GradScaler | None = None
    """Of float16 training."""

    def state(self) -> dict[str, Any]:
        """Return it as whole tensors on the CPU or the device; every process of a sharded run must ask."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.values
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        return whole_tensors(state)

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Take over what a checkpoint holds. Raises ValueError where it does not fit or lacks a part."""
        for name, part in (("average", self.average), ("scaler", self.scaler)):
            if part is not None and name not in state:
                raise ValueError(f"{path}: holds no {name}, which this run needs; give another --out.")
        _fill(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        shard_state(self.optimizer)
        if self.average is not None:
            self.average.take(shards_like(state["average"], self.average.values), path)
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((out / FOLDER).glob("step-*.pt"))


def save(out: Path, *, state: dict[str, Any], progress: Progress, keep_last: int) -> Path:
    """Write a checkpoint atomically, then delete all but the last `keep_last`; return its path."""
    path = out / FOLDER / f"step-{progress.step:08d}.pt"
    with replacing(path) as temporary:
        torch.save({**state, "progress": progress.__dict__}, temporary)
    for old in checkpoints(out)[:-keep_last]:
        old.unlink()
    return path


def load_model(path: Path, model: nn.Module) -> int:
    """Put a checkpoint's weights into the model, their average where the run kept one, and return its step."""
    state = _read(path)
    average: dict[str, Tensor] = state.get("average", {})
    _fill(model, state["model"] | average, path)
    return int(state["progress"]["step"])


def load_latest(out: Path, trained: Trained) -> tuple[Progress | None, list[str]]:
    """Restore the newest readable checkpoint; return its progress (None where there is none) and warnings."""
    warnings = []
    for path in reversed(checkpoints(out)):
        try:
            state = _read(path)
        except ValueError as error:
            broken = path.with_name(f"{path.name}.broken")
            path.rename(broken)
            warnings.append(f"{error} Going back to the one before; it is now called {broken.name}.")
            continue
        trained.restore(state, path)
        return Progress(**state["progress"]), warnings
    return None, warnings


def _fill(model: nn.Module, weights: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(shards_like(weights, model.state_dict()))
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit the model: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]}).") from error
