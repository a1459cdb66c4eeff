"""Whether runs may be compared: they must differ in nothing but their weights and their seed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.store import Stored
from engine.config import differences
from engine.record import RunRecord

TRANSFER_FIELDS = (
    "recipe",
    "data",
    "train_split",
    "val_split",
    "train_images",
    "val_images",
    "steps",
    "total_steps",
    "samples_seen",
    "architecture",
    "precision",
    "world_size",
)
PRETRAINING_FIELDS = ("data", "train_split", "train_images", "samples_seen", "architecture")


def transfer_problems(stored: Sequence[Stored]) -> list[str]:
    """Return what makes the runs of one task unequal, each line with the field's name; empty where they are equal.

    The whole configuration counts but for the seed and for what the engine lets a run change midway (workers, logging).
    """
    problems = _unequal(stored, _transfer_view)
    seen: dict[tuple[str, int], Path] = {}
    for item in stored:
        key = (item.record.weights_source, item.record.seed)
        if key in seen:
            problems.append(f"seed: {key[1]} of arm {key[0]} is recorded twice ({seen[key]}, {item.folder})")
        seen.setdefault(key, item.folder)
    return problems


def pretraining_problems(stored: Sequence[Stored]) -> list[str]:
    """Return what the pre-training arms do not share: images, image passes (samples_seen), architecture."""
    return _unequal(stored, _pretraining_view)


def origin_problems(transfers: Sequence[Stored], pretrainings: Sequence[Stored]) -> list[str]:
    """Return the arms whose weights are not those that the recorded pre-training of that arm left."""
    problems = []
    for arm in sorted({item.record.task for item in pretrainings}):
        left = {item.checkpoint_sha256 for item in pretrainings if item.record.task == arm} - {None}
        used = {item.record.weights_sha256 for item in transfers if item.record.weights_source == arm} - {None}
        if left and not used <= left:
            problems.append(f"weights_sha256: arm {arm} did not start from the checkpoint of its recorded pre-training")
    return problems


def _unequal(stored: Sequence[Stored], view: Callable[[RunRecord], dict[str, Any]]) -> list[str]:
    problems: dict[str, Path] = {}
    for item in stored[1:]:
        for line in differences(view(stored[0].record), view(item.record)):
            problems.setdefault(line, item.folder)
    return [f"{line} (from {stored[0].folder.name} to {folder.name})" for line, folder in problems.items()]


def _transfer_view(record: RunRecord) -> dict[str, Any]:
    view: dict[str, Any] = {name: getattr(record, name) for name in TRANSFER_FIELDS}
    config = dict(record.config)
    if isinstance(config.get("run"), dict):
        config["run"] = {name: value for name, value in config["run"].items() if name != "seed"}
    return {**view, "config": config}


def _pretraining_view(record: RunRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in PRETRAINING_FIELDS}
