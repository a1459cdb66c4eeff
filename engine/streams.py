"""What a command prints: names of files as the bytes they are, and silence where the reader has left (`| head`)."""

import atexit
import io
import os
import sys
from types import TracebackType

_ready: list[bool] = []


def prepare_streams() -> None:
    """From here on print names of files that are no UTF-8 as the bytes they are; leave a closed pipe without a word.

    To be called before the first line is printed; again it changes nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    if not _ready:
        _ready.append(True)
        sys.excepthook = _excepthook
        atexit.register(_flush)


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, BrokenPipeError):
        _to_nowhere()
    else:
        sys.__excepthook__(kind, error, traceback)


def _flush() -> None:
    """Print what is left; Python would tell of a closed pipe while it shuts down."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()


def _to_nowhere() -> None:
    """Have what is still to be flushed go nowhere (Python's documentation, `signal`, note on SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
