"""A run in a forked process: it has the parent's imports at once, and its death is not the suite's.

The parent must not have used threads or torch operations before: neither survives a fork. Nor may it have asked CUDA
for anything, the number of GPUs included: a fork could not use CUDA then. So it imports tools where CUDA is not counted
(`engine.device.cuda_untouched`), and decides by the driver's files who gets which GPU (`engine.share`).
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from engine.share import Share
from files.locking import locked

STOPS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def fork(work: Callable[[], int], *, title: str, log: Path, share: Share) -> BaseProcess:
    """Return the started process that calls `work`; what it prints is appended to `log`, below the title.

    Call with STOPS blocked (`blocked_stops`), so that no signal falls between the fork and the child's own handling.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_run, args=(work, title, log, share), name=log.stem)
    process.start()
    return process


@contextmanager
def blocked_stops() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back during a block; those that came are delivered at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(work: Callable[[], int], title: str, log: Path, share: Share) -> None:
    # a group of its own: the terminal's Ctrl-C reaches the parent alone, which passes it on once
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a cluster's warning goes to the parent, which passes it on
    if sys.platform == "linux":  # a parent that was killed asks its run to save and leave
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _redirect(log)
    share.take()
    print(f"--- {title}")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    try:
        with locked(log.parent, shared=True):  # by which the next suite sees a run that outlives a killed one
            code = work()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as leaving:  # the command-line parser leaves so
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}")
        code = 1
    raise SystemExit(code)


def _redirect(log: Path) -> None:
    """Send Python's streams and the file descriptors below them to the log, and read from nothing."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
