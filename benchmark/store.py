"""Every record below a folder, and what could not be read."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engine.record import RECORD_NAME, RunRecord, read_record

CHECKPOINT_NAME = "backbone.safetensors"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A record and where it lies."""

    folder: Path
    record: RunRecord
    checkpoint_sha256: str | None = None
    """Of the backbone that the run left; None where it leaves none."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """What was found below a folder."""

    root: Path
    stored: tuple[Stored, ...]
    unreadable: tuple[str, ...]
    """One line per record that could not be read; it begins with the file."""

    @property
    def completed(self) -> tuple[Stored, ...]:
        """Records of runs that came to their end."""
        return tuple(stored for stored in self.stored if stored.record.status == "completed")

    @property
    def incomplete(self) -> tuple[Stored, ...]:
        """Records of runs that failed, were interrupted, or were killed or are still going (`running`)."""
        return tuple(stored for stored in self.stored if stored.record.status != "completed")


def open_store(root: Path) -> Store:
    """Return the records below `root`, in the order of their folders. Raises FileNotFoundError where there is none."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give one that holds runs.")
    stored, unreadable = [], []
    for path in sorted(root.rglob(RECORD_NAME)):
        try:
            record = read_record(path)
        except (ValueError, OSError) as error:
            text = str(error)
            unreadable.append(text if text.startswith(str(path)) else f"{path}: {text}")
            continue
        stored.append(Stored(folder=path.parent, record=record, checkpoint_sha256=_checkpoint(path.parent, record)))
    if not stored and not unreadable:
        raise FileNotFoundError(f"{root}: no {RECORD_NAME} below it; give a folder that holds runs.")
    return Store(root=root, stored=tuple(stored), unreadable=tuple(unreadable))


def frame(stored: Sequence[Stored]) -> pd.DataFrame:
    """Return one row per record and metric: folder, status, task, recipe, weights, seed, metric, value.

    A record without metrics has one row whose metric and value are missing.
    """
    rows = []
    for item in stored:
        record = item.record
        head = (str(item.folder), record.status, record.task, record.recipe, record.weights_source, record.seed)
        metrics: list[tuple[str | None, float]] = [*record.metrics.items()]
        rows += [(*head, name, value) for name, value in metrics or [(None, math.nan)]]
    return pd.DataFrame(
        rows, columns=["folder", "status", "task", "recipe", "weights", "seed", "metric", "value"]
    ).sort_values(["folder", "metric"], ignore_index=True)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checkpoint(folder: Path, record: RunRecord) -> str | None:
    path = folder / CHECKPOINT_NAME
    return file_sha256(path) if CHECKPOINT_NAME in record.outputs and path.is_file() else None
