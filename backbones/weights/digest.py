"""What a thread finds out of a weights file while it is read: whether it is whole, and its SHA-256."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import BinaryIO

from files.digest import sha256_of

Version = tuple[int, int, int, int]


def version_of(stat: os.stat_result) -> Version:
    """Return what tells one content of a file from the next: device, inode, size, time of the last change."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def begin_check(opened: BinaryIO, check: Callable[[BinaryIO], None]) -> Callable[[], None]:
    """Return what waits for `check` of an opened file, on which a thread has begun, and raises what it raises."""
    result: Future[None] = Future()
    descriptor = os.dup(opened.fileno())

    def run() -> None:
        with os.fdopen(descriptor, "rb") as file:
            try:
                check(file)
                result.set_result(None)
            except Exception as error:
                result.set_exception(error)

    Thread(target=run, name="check", daemon=True).start()
    return result.result


def begin_digest(opened: BinaryIO, *, after: Callable[[], None]) -> Callable[[], str]:
    """Return what waits for the SHA-256 of an opened file, on which a thread begins (hashing releases the GIL).

    It begins when `after` returns or raises: loading waits for the check alone, so the check has the second core. The
    thread reads the descriptor, so a file that takes the place of this one changes nothing; `opened` may be closed.
    """
    return _begin(_Opened(os.dup(opened.fileno()), version_of(os.fstat(opened.fileno())), after)).result


class _Opened:
    """A descriptor that is equal to every other of the same content."""

    def __init__(self, descriptor: int, version: Version, after: Callable[[], None]) -> None:
        self.descriptor, self.version, self.after = descriptor, version, after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opened) and other.version == self.version

    def __hash__(self) -> int:
        return hash(self.version)

    def __del__(self) -> None:
        os.close(self.descriptor)


@lru_cache(maxsize=16)
def _begin(opened: _Opened) -> "Future[str]":
    result: Future[str] = Future()

    def run() -> None:
        with suppress(Exception):  # raised where it is asked for
            opened.after()
        try:
            with os.fdopen(os.dup(opened.descriptor), "rb") as file:
                file.seek(0)
                result.set_result(sha256_of(file))
        except OSError as error:
            result.set_exception(error)

    # daemon: a program that ends on an error must not wait for a digest that no one asks for
    Thread(target=run, name="sha256", daemon=True).start()
    return result
