"""Lines of a results file as metrics read them: every field has its type, or all that is wrong is said at once."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from files.typed import SAID, from_json


class LineError(ValueError):
    """Lines of a results file are not what they should be; the message has their numbers."""


def each_of(cls: type[Any], lines: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the fields of a dataclass of every line; a line may hold others."""
    names = {f.name for f in fields(cls)}
    picked = [{name: value for name, value in line.items() if name in names} for line in lines]
    return placed_as(cls, ((f"line {number}", line) for number, line in enumerate(picked, start=1)))


def placed_as(cls: type[Any], placed: Iterable[tuple[str, Any]]) -> list[Any]:
    """Return the values as dataclasses. Raises LineError with the faults of the first SAID that are none."""
    made, faults = [], []
    for place, value in placed:
        try:
            made.append(from_json(cls, value, place=place))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - SAID} more lines" if len(faults) > SAID else ""
        raise LineError("; ".join(faults[:SAID]) + more)
    return made
