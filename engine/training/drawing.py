"""Pictures never cost a run its numbers: one that cannot be drawn is a warning."""

from collections.abc import Callable, Iterable
from pathlib import Path


def drawn(what: str, draw: Callable[[], Iterable[Path]], warn: Callable[[str], None]) -> list[Path]:
    """Return the pictures that `draw` has written; none, with a warning that says why, where it fails."""
    try:
        return list(draw())
    except Exception as error:  # a host's drawing raises nearly anything
        reason = " ".join(str(error).split())[:500]
        warn(f"{what} could not be drawn ({type(error).__name__}: {reason}); the results are complete without.")
        return []
