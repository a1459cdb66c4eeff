"""What a row of the kit is given, and how it says what it found."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotRun(Exception):
    """A row cannot run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table, carried out in a process of its own."""

    name: str
    what: str
    """It measures or checks."""
    run: str
    """Its function, `module:function`, imported in its process alone."""
    share: int
    """Of the minutes, against the shares of the others."""
    small: bool = True
    """Whether it has a form for a machine without a GPU."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a row works with."""

    name: str
    device: str
    """cuda or cpu; on the latter the small form runs."""
    out: Path
    """Folder of the kit's results."""

    @property
    def small(self) -> bool:
        """Whether tiny models and few steps do."""
        return self.device == "cpu"

    @property
    def file(self) -> Path:
        """What this row has said so far."""
        return said_by(self.out, self.name)

    @property
    def folder(self) -> Path:
        """Room for what the row makes."""
        made = self.out / "rows" / self.name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def say(self, what: str, result: str, **numbers: float) -> None:
        """Keep a line of the table, at once."""
        write_line(self.file, {"what": what, "result": result, "numbers": numbers})
        print(f"{what}: {result}", flush=True)

    def earlier(self, name: str) -> dict[str, dict[str, float]]:
        """Return the numbers of another row, by what they are of; nothing where it has not run."""
        lines = read_lines(said_by(self.out, name))
        return {line["what"]: line["numbers"] for line in lines if "what" in line}


Function = Callable[[Ask], None]


def said_by(out: Path, name: str) -> Path:
    """Return the file of what a row said."""
    return out / "rows" / f"{name}.jsonl"


def write_line(path: Path, values: dict[str, Any]) -> None:
    """Add a line to a row's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a row's file; the last may be half a line, where its process was killed."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
