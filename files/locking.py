"""One process at a time in a folder: an advisory lock that names its holder and ends with the holder's process."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

NAME = ".lock"
# of a file system that has no locks
NO_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


class LockedError(ValueError):
    """Another process holds the lock of a folder."""


@contextmanager
def locked(folder: Path, *, wait: bool = False, shared: bool = False) -> Iterator[str | None]:
    """Hold the lock of `folder` (made where it is not there); give None, or a warning where the disk has no locks.

    The kernel lets go of the lock when the process ends, however it ends: a lock file that lies there locks nothing. A
    shared lock is held beside other shared ones.

    Raises LockedError that names the holder, unless `wait`; OSError where the lock file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        note = _take(file, path, wait=wait, shared=shared)
        if note is None and not shared:
            os.ftruncate(file, 0)
            os.pwrite(file, _me().encode(), 0)
        yield note
    finally:
        os.close(file)


def _take(file: int, path: Path, *, wait: bool, shared: bool) -> str | None:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
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


def _me() -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = " ".join(sys.argv)[:500]
    return f"process {os.getpid()} on {socket.gethostname()} since {now} ({command})\n"
