"""One run at work in a process of its own: started or continued, watched, asked to stop, and judged at its end."""

import os
import shlex
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from benchmark.runner.process import INTERRUPTED, fork
from benchmark.runner.recorded import record_of
from benchmark.study.run import SEARCHES, Run
from benchmark.study.search import has_diverged
from benchmark.study.tool import Tool
from engine.share import Share

Status = Literal["completed", "recorded", "failed", "interrupted", "not run"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the matrix ended."""

    run: Run
    status: Status
    seconds: float = 0.0
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether its result is there."""
        return self.status in ("completed", "recorded")


class Attempt:
    """A run that has been started."""

    def __init__(self, number: int, run: Run, tool: Tool, share: Share) -> None:
        """Start run `number`, or continue it where its folder holds something; with STOPS blocked, as `fork` asks.

        Raises OSError.
        """
        self.number, self.run, self.share, self._tool = number, run, share, tool
        self.fresh = not (run.out.is_dir() and any(run.out.iterdir()))  # so that its time tells how long its kind takes
        self.resuming = tool.settings is not None and not self.fresh
        assert run.job is not None  # of a run that was not refused
        job = run.job.resumed() if self.resuming else run.job
        self._printed_before = run.log.stat().st_size if run.log.exists() else 0
        self._start = time.monotonic()
        self._child = fork(
            partial(tool.run, job.args, job.config),
            title=f"{run.name}: {shlex.join([run.tool, *job.command()])}",
            log=run.log,
            share=share,
        )

    @property
    def sentinel(self) -> int:
        """What `multiprocessing.connection.wait` waits for."""
        return self._child.sentinel

    @property
    def ended(self) -> bool:
        """Whether the process has left."""
        return self._child.exitcode is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def last_line(self) -> str:
        """Return the last line that the run has printed."""
        try:
            text = _read_from(self.run.log, max(0, self.run.log.stat().st_size - 4096))
        except OSError:  # the child has not opened it yet
            return ""
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._child.pid is not None and not self.ended:
            os.kill(self._child.pid, number)

    def wait(self) -> None:
        """Wait until the process has left."""
        self._child.join()

    def outcome(self, *, stopped: bool) -> Outcome:
        """Return how the run ended; `stopped`: it was asked to."""
        code = self._child.exitcode
        assert code is not None
        seconds, run, record = self.elapsed, self.run, record_of(self.run)
        recorded = record.status if record else None
        if run.phase in SEARCHES and code == 1 and record is not None and has_diverged(record):  # the rate is too high
            return Outcome(run=run, status="completed", seconds=seconds, error=record.error)
        if code == 0 and (self._tool.settings is None or recorded == "completed"):
            return Outcome(run=run, status="completed", seconds=seconds)
        if (recorded == "interrupted" and code == INTERRUPTED) or (stopped and code != 1):
            by = record.error if record and record.error else "a signal"
            return Outcome(run=run, status="interrupted", seconds=seconds, error=f"interrupted by {by}")
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system does so when memory runs out" if name == "SIGKILL" else ""
            return Outcome(run=run, status="failed", seconds=seconds, error=f"killed by {name}{hint}")
        printed = _read_from(run.log, self._printed_before)
        error = _error_line(printed) or f"exit code {code} and no completed record"
        return Outcome(run=run, status="failed", seconds=seconds, error=error)


def _read_from(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", errors="replace")


def _error_line(printed: str) -> str | None:
    """Return the last line that begins with `error:`, without that word, else the last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip() and not line.startswith("---")]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    found = errors or lines
    return found[-1] if found else None
