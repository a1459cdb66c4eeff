"""The lock of a folder: one holder, named; gone with its process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from files.locking import LockedError, holding, locked

HOLD = "import sys; from pathlib import Path; from files.locking import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"is being written to by process {child.pid} on "), locked(tmp_path):
        pass
    child.kill()  # and the lock file stays behind
    child.wait()
    with locked(tmp_path) as note:
        assert note is None
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        stream.close()


def test_shared_locks_are_held_together_and_against_an_exclusive_one(tmp_path: Path) -> None:
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True), pytest.raises(LockedError), locked(tmp_path):
        pass
    with locked(tmp_path), pytest.raises(LockedError), locked(tmp_path, shared=True):
        pass


def test_the_lock_file_is_no_link_that_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError), locked(tmp_path):
        pass
    assert victim.read_text() == "mine"


def test_a_forked_process_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    """The loader processes of a run that was killed must not lock its folder."""
    code = (
        "import os, sys, time; from pathlib import Path; from files.locking import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if not (child := os.fork()): time.sleep(60)\n"
        "    print(child, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert holding(tmp_path) == "held"
    parent.kill()
    parent.wait()
    os.kill(child, 0)  # is alive
    with locked(tmp_path) as note:
        assert note is None
    os.kill(child, signal.SIGKILL)


def test_whether_a_lock_is_held_is_seen_without_taking_it(tmp_path: Path) -> None:
    assert holding(tmp_path) == "unknown"  # never locked
    with locked(tmp_path):
        assert holding(tmp_path) == "held"
    assert holding(tmp_path) == "free"
    (tmp_path / ".lock").write_text("process 7 on another.machine since 2026-01-01 (x)")
    assert holding(tmp_path) == "unknown"  # its locks may not be seen here
