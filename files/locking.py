"""One process at a time in a folder: an advisory lock that names its holder and ends with the holder's process."""

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

NAME = ".lock"
# of a file system that has no locks
NO_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)
PATIENCE = 0.5  # seconds: `holder` looks for a moment, and a killed process needs one to go
Holding = Literal["held", "free", "unknown"]
_held: set[int] = set()  # file descriptors of the locks of this process


class LockedError(ValueError):
    """Another process holds the lock of a folder."""


@contextmanager
def locked(folder: Path, *, wait: bool = False, shared: bool = False) -> Iterator[str | None]:
    """Hold the lock of `folder` (made where it is not there); give None, or a warning where the disk has no locks.

    The kernel lets go of the lock when the process ends, however it ends: a lock file that lies there locks nothing.
    Processes that are forked from the holder do not hold it. A shared lock is held beside other shared ones.

    Raises LockedError that names the holder, unless `wait`; OSError where the lock file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    _held.add(file)
    try:
        note = _take(file, path, wait=wait, shared=shared)
        if note is None and not shared:
            with suppress(OSError):  # on a full disk the lock holds without its holder's name
                os.ftruncate(file, 0)
                os.pwrite(file, _me().encode(), 0)
        yield note
    finally:
        if file in _held:  # else this is a forked process, which has let go of it
            _held.discard(file)
            os.close(file)


def holding(folder: Path) -> Holding:
    """Return whether a process holds the lock of `folder`, as far as this machine can tell.

    It cannot where there is no lock file, or the last holder is of another machine whose locks may not reach here.
    """
    try:
        file = os.open(folder / NAME, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return "unknown"
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        here = f" on {socket.gethostname()} since " in os.pread(file, 1000, 0).decode(errors="replace")
        return "free" if here else "unknown"
    except BlockingIOError:
        return "held"
    except OSError:
        return "unknown"
    finally:
        os.close(file)


def _take(file: int, path: Path, *, wait: bool, shared: bool) -> str | None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    until = time.monotonic() + PATIENCE
    try:
        while not wait and time.monotonic() < until:
            with suppress(BlockingIOError):
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                return None
            time.sleep(PATIENCE / 20)
        fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        holder = os.pread(file, 1000, 0).decode(errors="replace").strip() or "another process"
        raise LockedError(
            f"{path.parent}: is being written to by {holder}; wait for it, stop it, or give another --out."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return f"{path.parent}: its file system has no locks ({error}); see that no second process writes there."
    return None


def _let_go() -> None:
    """Close a forked process's copies of the locks: the lock lasts while any copy is open."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _me() -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = " ".join(sys.argv)[:500]
    return f"process {os.getpid()} on {socket.gethostname()} since {now} ({command})\n"
