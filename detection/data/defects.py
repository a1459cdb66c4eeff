"""What is wrong in single annotations: counted, with a few examples of each, and said."""

from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMED = 3  # examples in a message


@dataclass(frozen=True)
class Defect:
    """Something wrong in single annotations, and how it is treated."""

    what: str
    count: int
    examples: tuple[str, ...]


class Tally:
    """Counts what is wrong with single annotations and keeps a few examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, example: str) -> None:
        """Count one more."""
        self._counts[what] = self._counts.get(what, 0) + 1
        examples = self._examples.setdefault(what, [])
        if len(examples) < MOST_NAMED:
            examples.append(example)

    def defects(self) -> tuple[Defect, ...]:
        """Return everything counted, in the order of its first example."""
        return tuple(Defect(what, count, tuple(self._examples[what])) for what, count in self._counts.items())


def some(names: Iterable[str], total: int | None = None) -> str:
    """Return the first few names and how many more there are, of `total` where only examples are given."""
    listed = list(names)
    rest = (total or len(listed)) - min(len(listed), MOST_NAMED)
    return ", ".join(listed[:MOST_NAMED]) + (f", and {rest} more" if rest else "")


def said(defect: Defect) -> str:
    """Return a defect in a line."""
    return f"{defect.what}: {defect.count} ({some(defect.examples, defect.count)})"
