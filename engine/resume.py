"""Resumable checkpoints: model, optimiser and progress, `checkpoints/step-00000100.pt`, the last k kept.

The random state is no part of them: every random number is a function of the seed and the step (engine.seeding).
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from engine.files import replacing

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


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((out / FOLDER).glob("step-*.pt"))


def save(out: Path, *, model: nn.Module, optimizer: Optimizer, progress: Progress, keep_last: int) -> Path:
    """Write a checkpoint atomically, then delete all but the last `keep_last`; return its path."""
    path = out / FOLDER / f"step-{progress.step:08d}.pt"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress.__dict__}
    with replacing(path) as temporary:
        torch.save(state, temporary)
    for old in checkpoints(out)[:-keep_last]:
        old.unlink()
    return path


def load_model(path: Path, model: nn.Module) -> int:
    """Put a checkpoint's weights into the model and return its step."""
    state = _read(path)
    _fill(model, state["model"], path)
    return int(state["progress"]["step"])


def load_latest(out: Path, *, model: nn.Module, optimizer: Optimizer) -> tuple[Progress | None, list[str]]:
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
        _fill(model, state["model"], path)
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"]), warnings
    return None, warnings


def _fill(model: nn.Module, weights: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit the model: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]}).") from error
