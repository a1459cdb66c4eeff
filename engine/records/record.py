"""The one record of a run, `record.json`: all that tables read."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from engine.config import as_json
from engine.records import version1
from engine.records.use import Use
from files.digest import sealed, unsealed
from files.locking import Holding, holding
from files.naming import inside
from files.parsing import parse_json
from files.typed import from_json, shown
from files.writing import replacing

SCHEMA_VERSION = 2
RECORD_NAME = "record.json"
IDENTITY_NAME = "config.json"  # engine.records.identity
WEIGHTS_NAME = "weights.txt"
PICTURES = "pictures"  # folders of a run
TENSORBOARD = "tensorboard"
Status = Literal["running", "completed", "interrupted", "failed"]
COUNTS = ("seed", "steps", "total_steps", "samples_seen", "train_images", "val_images")  # none of them below zero
ROOM = 16_384  # bytes that the end of a run may add to its record: names of pictures, digests, an error
TRAINED = 3  # forward plus backward pass of what is trained, in forward passes: the usual estimate


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run took, over all its sessions."""

    parameters: int
    """Of the whole model."""
    flops_per_image: int | None
    """MACs of one forward pass of what is trained on one sample, as fvcore counts them.

    Of labels, boxes and segments that is the backbone alone; else all of the model (MoCo v3: on both views)."""
    images_per_second: float | None
    """Samples per second of training, evaluation left out."""
    data_wait_share: float | None
    """Share of the training time spent waiting for data."""
    peak_memory_bytes: int
    """CUDA: peak allocated on rank 0; CPU: peak resident set of the process."""
    train_seconds: float
    """Wall clock of the training steps."""
    total_seconds: float
    """Wall clock of the sessions, evaluation and saving included."""
    frozen_flops_per_image: int = 0
    """MACs of what is frozen and so has no backward pass, on the same: a tokenizer, a momentum encoder."""

    @property
    def training_flops(self) -> float | None:
        """MACs of training on one sample, an estimate; None where they are not recorded."""
        if self.flops_per_image is None:
            return None
        return TRAINED * self.flops_per_image + self.frozen_flops_per_image


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics at one step."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as tables see it."""

    run_id: str
    """Digest of the configuration, of the weights, and of the data's splits, sizes and classes."""
    task: str
    recipe: str
    status: Status
    seed: int
    steps: int
    """Optimiser steps done."""
    total_steps: int
    """Optimiser steps planned."""
    samples_seen: int
    """Samples seen: crops, where several are taken of every loaded image."""
    data: str
    train_split: str
    val_split: str
    train_images: int
    val_images: int
    data_notes: tuple[str, ...]
    unreadable_images: tuple[str, ...]
    """`path: reason` of every image that could not be read, each once."""
    architecture: dict[str, Any]
    weights_source: str
    weights_path: str | None
    weights_sha256: str | None
    weights_report: tuple[str, ...]
    primary_metric: str
    metrics: dict[str, float]
    """Of the last evaluation; empty before the first."""
    evaluations: tuple[Evaluation, ...]
    losses: dict[str, float]
    """Of the last step."""
    cost: Cost
    config: dict[str, Any]
    """The whole task configuration, `run` included."""
    results_file: str | None
    """Per-image results, relative to the record's folder."""
    pictures: tuple[str, ...]
    outputs: tuple[str, ...]
    """Other files the run left, relative to the record's folder."""
    git_commit: str | None
    """With `+dirty` where the tree had changes."""
    libraries: dict[str, str]
    device: str
    world_size: int
    precision: str
    """What it was computed in; of a run that was resumed in another, `bf16-mixed to step 100, then 32-true`."""
    started: str
    """UTC, ISO 8601."""
    ended: str | None
    error: str | None
    """Why it failed or stopped."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What makes the data what they are: the classes."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What predictions are written with beside the classes: of label maps the colours and the stored numbers; empty in
    records that were written before they were kept."""
    weights_options: dict[str, Any] = field(default_factory=dict)
    """What was declared of the weights file, its family first."""
    weights_name: str | None = None
    """How the weights can be had again, where they came by name: `hf:OWNER/MODEL@COMMIT`, or an address."""
    normalisation: dict[str, tuple[float, ...]] | None = None
    """Mean and std of the pixels; None in records that were written before they were kept."""
    departures: tuple[str, ...] = ()
    """In what the recipe differs from the published one that it reproduces, and what the run changed of the recipe."""
    results_sha256: str | None = None
    """Of the file of per-image results; None in records that were written before it was kept."""
    files_sha256: dict[str, str] = field(default_factory=dict)
    """Of other files of a completed run that are read again, by name: metrics.csv, per_class.csv, `outputs`; empty in
    records that were written before they were kept."""
    warnings: tuple[str, ...] = ()
    """What went wrong without an end of the run, in its last session: a picture that could not be drawn, a checkpoint
    that could not be read."""
    arm: str | None = None
    """What the initial weights are called in a comparison (--arm); None where they go by `weights_source`."""
    use: tuple[Use, ...] = ()
    """What the trained model takes when it is used, where that was measured (tools/measure_cost.py)."""
    schema_version: int = SCHEMA_VERSION


def write_record(folder: Path, record: RunRecord, *, over: bool = False) -> Path:
    """Write `folder/record.json` atomically, with the digest of its content, and return its path.

    With `over`, for the last word on a run, it is written over the old one where there is no room for a new file; the
    record of a run at work ends with ROOM spaces for that.

    Raises OSError with the way out where neither can be.
    """
    path, values = folder / RECORD_NAME, sealed(as_json(record))
    room = " " * ROOM if record.status == "running" else ""
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n" + room, encoding="utf-8")
    except OSError as error:
        if not over:
            raise
        if not _written_over(path, json.dumps(values).encode() + b"\n"):
            raise OSError(
                f"{error} So it does not say that the run is {record.status}. Make room, then add --resume to the same "
                "command, which writes it."
            ) from error
    return path


def _written_over(path: Path, content: bytes) -> bool:
    """Write into the blocks that the file has on the disk; False where they are too few, or cannot be written."""
    try:
        with path.open("r+b") as file:
            if len(content) > os.fstat(file.fileno()).st_blocks * 512:
                return False
            file.write(content)
            file.truncate()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def standing(folder: Path, record: RunRecord) -> str:
    """Return the status of the run in `folder` in words; a killed run cannot write its own, but its lock is gone."""
    if record.status != "running":
        return record.status
    held: dict[Holding, str] = {
        "held": "running",
        "free": "killed",
        "unknown": "killed or still running",
    }
    return held[holding(folder)]


def read_record(path: Path) -> RunRecord:
    """Return the record in a file or a run's folder. Raises FileNotFoundError or ValueError that names the file."""
    path = path / RECORD_NAME if path.is_dir() else path
    if path.name == RECORD_NAME:
        inside(path.parent, RECORD_NAME, source=path.parent)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such record; give the folder that a run wrote to.")
    text = path.read_bytes()
    try:
        values = parse_json(text, path.name, surrogates=True)  # names of files that are no UTF-8
        if b"\\u" in text:
            json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape")
        version = values.get("schema_version")
        check_version(version)
        values = unsealed(values, str(path))
        values = values if version == SCHEMA_VERSION else version1.record_of_today(values)
        if "config" in values:
            values = {**values, "config": version1.without_left_out(values["config"])}
        record = from_json(RunRecord, values)
        if faults := _faults(record):
            raise ValueError("; ".join(faults))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a readable record ({error}).") from error
    return record


def check_version(version: object) -> None:
    """Raise ValueError for a schema version that this code does not read."""
    if type(version) is not int or version not in (version1.VERSION, SCHEMA_VERSION):
        raise ValueError(f"schema version {shown(version)}, this code reads {version1.VERSION} and {SCHEMA_VERSION}")


MOST = 2**63 - 1  # of a count: tables hold 64 bits


def _faults(record: RunRecord) -> list[str]:
    """Return what no run can have written: numbers out of their range, paths out of the folder."""
    counts = {name: getattr(record, name) for name in COUNTS} | {
        f"cost.{name}": value for name, value in record.cost.__dict__.items() if value is not None
    }
    faults = [f"{name}: {shown(value)} is below zero" for name, value in counts.items() if value < 0]
    faults += [
        f"{name}: {shown(value)} is beyond {MOST:,}" for name, value in counts.items() if MOST < value < math.inf
    ]
    if record.world_size < 1:
        faults.append(f"world_size: {shown(record.world_size)} is below one")
    faults += [f"evaluations[{i}].step: {e.step} is below zero" for i, e in enumerate(record.evaluations) if e.step < 0]
    names = [
        *record.pictures,
        *record.outputs,
        *record.files_sha256,
        *([] if record.results_file is None else [record.results_file]),
    ]
    faults += [f"{shown(name)} is no path inside the record's folder" for name in names if _leads_out(name)]
    if record.normalisation is not None:
        mean, std = record.normalisation.get("mean"), record.normalisation.get("std")
        if len(record.normalisation) != 2 or not mean or not std or len(mean) != len(std) or min(std) <= 0:
            faults.append(f"normalisation: {shown(record.normalisation)} is no mean and std above 0 of each channel")
    return faults + _config_faults(record.config)


def _config_faults(config: dict[str, Any]) -> list[str]:
    """Return what tables could not read of the configuration of any task."""
    run = config.get("run", {})
    objects = {"run": run, "backbone": config.get("backbone", {})}
    if isinstance(run, dict):
        objects["run.optim"] = run.get("optim", {})
    faults = [f"config.{name}: {shown(v)} is no object" for name, v in objects.items() if not isinstance(v, dict)]
    part = config.get("label_fraction")
    if part is not None and (isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1):
        faults.append(f"config.label_fraction: {shown(part)} is no fraction above 0 and up to 1")
    protocol, blocks = config.get("protocol", ""), config.get("tuned_blocks", 1)
    if not isinstance(protocol, str):
        faults.append(f"config.protocol: {shown(protocol)} is no text")
    if isinstance(blocks, bool) or not isinstance(blocks, int | float) or not 0 < blocks <= MOST:
        faults.append(f"config.tuned_blocks: {shown(blocks)} is no number above 0")
    return faults


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return not name or "\0" in name or path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)
