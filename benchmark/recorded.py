"""What the folder of a run says: whether it is finished, and whether with the settings that are wanted now."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.matrix import FILE_ARCHITECTURE, Run
from benchmark.search import is_settled
from benchmark.store import file_sha256
from engine.config import differences
from engine.record import RunRecord, read_record


def record_of(run: Run) -> RunRecord | None:
    """Return the record that a run has left, the last of several; None where there is none that can be read."""
    try:
        return read_record(run.records[-1])
    except (FileNotFoundError, ValueError):  # an unreadable record is written anew by the resumed run
        return None


def is_finished(run: Run, record: RunRecord | None) -> bool:
    """Return whether a run has said all that it will; in a search that is also a loss that became infinite."""
    if record is None:
        return False
    return is_settled(record) if run.phase == "search" else record.status == "completed"


def other_settings(run: Run, record: RunRecord, config: Callable[[list[str]], dict[str, Any]]) -> list[str]:
    """Return in what a finished run differs from the one that is wanted now."""
    wanted = json.loads(json.dumps(config([*run.argv])))
    found = differences(record.config, wanted)
    if FILE_ARCHITECTURE[0] in run.argv:  # the weights have it, whose sha256 is compared below
        found = [line for line in found if not line.startswith("backbone.") or line.startswith("backbone.image_size")]
    if run.data is not None and Path(record.data).resolve() != run.data.resolve():
        found.append(f"data: {record.data} -> {run.data}")
    weights = file_sha256(run.init) if run.init is not None else None
    if record.weights_sha256 != weights:
        found.append(f"weights_sha256: {_short(record.weights_sha256)} -> {_short(weights)}")
    return found


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none (random)"
