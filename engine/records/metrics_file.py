"""metrics.csv, the stream of a run's numbers: rows of step, name and value, added while it trains.

A run that goes on from a checkpoint cuts the file to what it was at the checkpoint, whose size and digest the
checkpoint knows. Where the file is no longer that, what can be read is kept and the rest is counted.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from files.writing import free_space, replacing

CSV_NAME = "metrics.csv"
HEAD = b"step,name,value\r\n"
VALIDATION = "val/"
_STEP = re.compile(r"\d{1,18}", re.ASCII)
_VALUE = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|-?inf|nan", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One number of a run."""

    step: int
    name: str
    value: float


@dataclass(frozen=True)
class Mark:
    """What the file was at a moment; a `size` of 0 knows nothing."""

    size: int = 0
    """Bytes."""
    sha256: str = ""


class MetricsFile:
    """The file of a run at work."""

    def __init__(self, out: Path, *, step: int, evaluated: bool, mark: Mark) -> None:
        """Go on after `step`: drop what the run will write again, and what cannot be read.

        Without `evaluated` the evaluation at `step` is written again too. `mark` is the checkpoint's.
        """
        self._path = out / CSV_NAME
        self.problem: str | None = None
        """What was wrong with the file, for people."""
        content = self._path.read_bytes() if self._path.exists() else b""
        if mark.size and hashlib.sha256(content[: mark.size]).hexdigest() == mark.sha256:
            kept = content[: mark.size]
        else:
            rows, bad = parse_rows(content)
            again = [row for row in rows if row.step == step and row.name.startswith(VALIDATION) and not evaluated]
            kept = HEAD + _lines(row for row in rows if row.step <= step and row not in again)
            if bad:
                first = f"{len(bad)} of its lines (the first: line {bad[0]}) are no step, name and value"
                self.problem = f"{self._path}: {first}; they were dropped."
            elif mark.size:
                self.problem = f"{self._path}: is not what it was at the checkpoint; its curves may be wrong in places."
        if kept != content:
            with replacing(self._path) as temporary:
                temporary.write_bytes(kept)
        self._size, self._digest = len(kept), hashlib.sha256(kept)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the rows of one step. Raises OSError that names the file where they cannot be written."""
        lines = _lines(Row(step, name, float(value)) for name, value in values.items())
        try:
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise OSError(
                f"{self._path}: the rows of step {step} could not be written ({error}); {free_space(self._path)}. Make "
                "room and add --resume: the run goes on from its last checkpoint."
            ) from error
        self._size += len(lines)
        self._digest.update(lines)

    def mark(self) -> Mark:
        """Return what the file is now."""
        return Mark(self._size, self._digest.hexdigest())


def parse_rows(content: bytes) -> tuple[list[Row], list[int]]:
    """Return the rows of the file and the numbers of the lines that are none: torn, damaged, or foreign.

    A last line without an end may be cut within its number, so it is none.
    """
    rows, bad = [], []
    *lines, rest = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        text = line.decode(errors="replace").removesuffix("\r")
        if not text or (number == 1 and text == "step,name,value"):
            continue
        if (row := _row(text)) is None:
            bad.append(number)
        else:
            rows.append(row)
    return rows, [*bad, *([len(lines) + 1] if rest else [])]


def _row(text: str) -> Row | None:
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None
    if len(fields) != 3 or "\0" in text or not fields[1]:
        return None
    step, name, value = fields
    return Row(int(step), name, float(value)) if _STEP.fullmatch(step) and _VALUE.fullmatch(value) else None


def _lines(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows((row.step, row.name, repr(row.value)) for row in rows)
    return text.getvalue().encode()
