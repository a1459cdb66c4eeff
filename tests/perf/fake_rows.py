"""Rows that do what a row may do: say, fail, miss a library, take too long, die."""

import os
import signal
import subprocess
import sys
import time

from perf.gpu.row import Ask, NotRun


def says(ask: Ask) -> None:
    """Say one thing; the second call says another, so that a row that is run again shows."""
    calls = ask.out / f"{ask.name}.calls"
    calls.write_text((calls.read_text() if calls.exists() else "") + "x")
    ask.say("what", f"call {len(calls.read_text())} | {ask.device}", value=1.5)


def refuses(ask: Ask) -> None:
    """Not run, for a reason of its own."""
    raise NotRun("the moon is full")


def misses(ask: Ask) -> None:
    """Need what is not installed."""
    import no_such_library.part  # noqa: F401


def fails(ask: Ask) -> None:
    """Fail after a line."""
    ask.say("first half", "done")
    raise RuntimeError("no kernel\nand more")


def hangs(ask: Ask) -> None:
    """Take too long, with a process of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ask.say("child", str(child.pid))
    time.sleep(60)


def dies(ask: Ask) -> None:
    """End without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupts(ask: Ask) -> None:
    """Have the kit stopped."""
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
