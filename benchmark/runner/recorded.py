"""What the folder of a run says: whether it is finished, and whether with the settings that are wanted now."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backbones.weights.checksum import check_stamp
from benchmark.compare.fairness import HAS_CLASS_TOKEN, Later
from benchmark.study.run import SEARCHES, Run, settled
from benchmark.study.search import has_diverged
from engine.config import as_json, differences
from engine.recipe import with_short_warmup
from engine.records.own_files import own_file
from engine.records.record import RECORD_NAME, RunRecord, read_record
from files.digest import file_sha256
from files.parsing import parse_json
from files.typed import from_json

FROM_WEIGHTS = "backbone."
"""Of fields that `init_architecture: file` takes from the weights."""


def record_of(run: Run) -> RunRecord | None:
    """Return the record that a run has left, the last of several; None where there is none that can be read."""
    return recorded_in(run.records[-1])


def recorded_in(folder: Path) -> RunRecord | None:
    """Return the record in a folder, None where there is none that can be read."""
    try:
        return read_record(folder)
    except (FileNotFoundError, ValueError):  # an unreadable record is written anew by the resumed run
        return None


def is_finished(run: Run, record: RunRecord | None, runs: Sequence[Run]) -> bool:
    """Return whether a run of `runs` has said all that it will; in a search that is also a loss that became infinite.

    A pre-training may be without its weights once every run that starts from them is finished.
    """
    if needless(run) is not None:
        return True
    if record is None:
        return False
    if run.phase in SEARCHES and has_diverged(record):
        return True
    return record.status == "completed" and (not spoilt_outputs(run, record) or is_without_weights(run, record, runs))


def needless(run: Run) -> str | None:
    """Return why a run has nothing to do, None where it has something.

    A rate beyond a grid is tried only where an arm's best rate is the end of the grid. The probe of a short
    pre-training has nothing to probe where its loss became infinite.
    """
    if run.beyond is not None and run.beyond.wanted() is False:
        return f"not needed, no arm's best learning rate is the {run.beyond.side} of its grid"
    if run.phase != "pretrain-probe" or run.init is None:
        return None
    record = recorded_in(run.init.parent)
    return record.error if record is not None and has_diverged(record) else None


def is_without_weights(run: Run, record: RunRecord, runs: Sequence[Run]) -> bool:
    """Return whether the weights of a completed run are gone, and no run that is left starts from them."""
    names = _weights(run, record)
    if not names or any((run.records[-1] / name).exists() or name not in record.files_sha256 for name in names):
        return False
    users = [other for other in runs if run.name in other.needs]
    return bool(users) and all(is_finished(user, record_of(user), runs) for user in users)


def spoilt_outputs(run: Run, record: RunRecord) -> list[str]:
    """Return a line for each file of weights that a run has left, by its record, and that is gone or another now."""
    found = []
    for name in _weights(run, record):
        try:
            path = own_file(run.records[-1], record, name)
            if path is None:
                found.append(f"{run.records[-1] / name}: is gone")
            elif not _is_whole(path):
                found.append(f"{path}: is cut off or no safetensors file")
            elif name not in record.files_sha256:  # in a record of before, whose file may have a checksum of its own
                with path.open("rb") as file:
                    check_stamp(path, file)
        except (OSError, ValueError) as error:
            found.append(str(error))
    return found


def _without_short_warmup(found: list[str], run: Run, record: RunRecord) -> list[str]:
    """Return the differences without that of a warm-up which the run has shortened as `with_short_warmup` does."""
    assert run.job is not None
    wanted = from_json(type(run.job.config), run.settings)
    made = as_json(with_short_warmup(wanted, run.job.recipe, images=record.train_images))
    if differences(record.config["run"]["schedule"]["warmup"], made["run"]["schedule"]["warmup"]):
        return found
    return [line for line in found if not line.startswith("run.schedule.warmup.")]


def _weights(run: Run, record: RunRecord) -> list[str]:
    """Return the names of the files of weights that runs start from; those of a transfer serve no run of a study."""
    return [] if run.task is not None else [name for name in record.outputs if name.endswith(".safetensors")]


def other_settings(run: Run, record: RunRecord, later: Later | None = None) -> list[str]:
    """Return in what a finished run differs from the one that is wanted now; `later` is as fairness takes it."""
    wanted = settled(run, record)
    found = _differing(run, record, record.config, wanted)
    if found and later is not None:
        found = _differing(run, record, later(record.task, record.config), wanted)
    found = [line for line in found if not line.startswith(f"{HAS_CLASS_TOKEN}:")]  # as the weights, compared below
    if any(line.startswith("run.schedule.warmup.") for line in found):
        found = _without_short_warmup(found, run, record)
    if run.data is not None and Path(record.data).resolve() != run.data.resolve():
        found.append(f"data: {record.data} -> {run.data}")
    weights = None if run.init is None else _weights_sha256(run.init)
    if record.weights_sha256 != weights:
        found.append(
            f"weights_sha256: {_short(record.weights_sha256)} -> {_short(weights)}"
            + ("" if run.init is None else f", which is {run.init} now; with the file of before the run stays valid")
        )
    return found


def _differing(run: Run, record: RunRecord, recorded: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return in what two configurations differ, but for what the run takes from its weights: their sha256 is compared.

    What follows from the depth of the weights is compared as the recipe's depth has it.
    """
    assert run.job is not None
    if getattr(run.job.args, "init_architecture", "recipe") != "file":
        return differences(recorded, wanted)
    if (at_depth := run.job.at_depth) is not None:
        recorded, wanted = (dict(at_depth(record.task, config, record.recipe)) for config in (recorded, wanted))
    found = differences(recorded, wanted)
    return [line for line in found if not line.startswith(FROM_WEIGHTS) or line.startswith("backbone.image_size")]


def _weights_sha256(path: Path) -> str:
    """Return the digest of weights; where they are gone, what the record of the run that made them says.

    A file that many runs start from is read once.
    """
    if not path.exists() and (path.parent / RECORD_NAME).is_file():
        wanted = read_record(path.parent).files_sha256.get(path.name)
        if wanted is not None:
            return wanted
    known = path.stat()
    return _digest(path, known.st_size, known.st_mtime_ns)


@cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return file_sha256(path)


def _is_whole(path: Path) -> bool:
    """Return whether a safetensors file has as many bytes as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            return False
        header = parse_json(file.read(length), str(path))
    if not isinstance(header, dict):
        return False
    try:
        ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        return bool(size == 8 + length + max(ends, default=0))
    except (LookupError, TypeError):
        return False


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none (random)"
