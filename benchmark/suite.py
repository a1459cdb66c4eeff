"""Carry out a matrix of runs: skip what is recorded, resume what was interrupted, go on when one fails."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from benchmark.child import INTERRUPTED, STOPS, blocked_stops, fork
from benchmark.matrix import FILE_ARCHITECTURE, PATHS, Run
from benchmark.progress import Estimate, Screen, clock
from benchmark.search import Choice, choose, is_settled
from benchmark.store import file_sha256
from benchmark.study import RATE_FLAG
from engine.config import differences
from engine.record import RunRecord, read_record

LOCK = ".lock"
POLL = 0.5  # seconds between looks at a run
STOPPED_BEFORE = "stopped before"
Status = Literal["completed", "recorded", "failed", "interrupted", "not run"]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A command-line tool as the suite calls it."""

    main: Callable[[list[str]], int]
    """Takes the command line and returns the exit code."""
    config: Callable[[list[str]], dict[str, Any]] | None
    """The configuration that its record would hold; None for a tool that leaves no record and repeats no work."""
    flags: PATHS
    """Names of its flags, and which of them name a file or folder."""


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


def exit_code(outcomes: Sequence[Outcome], *, stopped: bool) -> int:
    """Return 0 where all results are there, 130 where someone stopped the suite, else 1."""
    if all(outcome.good for outcome in outcomes):
        return 0
    return INTERRUPTED if stopped else 1


class Suite:
    """One pass over a matrix."""

    def __init__(self, tools: Mapping[str, Tool], console: Console) -> None:
        self.tools = tools
        self.console = console
        self.stopped = False
        """Whether SIGINT or SIGTERM came."""
        self._child: BaseProcess | None = None
        self._chosen: list[Choice] = []

    def carry_out(self, runs: Sequence[Run], folder: Path) -> list[Outcome]:
        """Return how each run ended, in order; after a stop request the rest is `not run`.

        Raises ValueError where another suite works in `folder`.
        """
        estimate = Estimate(runs)
        for run in runs:
            if _finished(run, record_of(run)):
                estimate.leave_out(run)
        outcomes: dict[str, Outcome] = {}
        with _locked(folder), self._handled(), Screen(self.console, len(runs)) as screen:
            for number, run in enumerate(runs, start=1):
                lacking = [name for name in run.needs if not outcomes[name].good]
                if self.stopped:
                    outcome = Outcome(run=run, status="not run", error=STOPPED_BEFORE)
                elif lacking:
                    outcome = Outcome(run=run, status="not run", error=f"needs {', '.join(lacking)}")
                else:
                    outcome = self._attempt(number, run, screen, estimate)
                estimate.leave_out(run)
                outcomes[run.name] = outcome
                if outcome.error != STOPPED_BEFORE:
                    screen.end(number, run, _said(outcome))
        return list(outcomes.values())

    def carry_one(self, name: str, runs: Sequence[Run], folder: Path) -> Outcome:
        """Return how one run of a matrix ended, for a job that others work beside; what it needs is seen in records.

        Signals are left to who started the job. Raises ValueError where a suite or another job of this run is at work.
        """
        by_name = {run.name: run for run in runs}
        run = by_name[name]
        lacking = [need for need in run.needs if not self.is_there(by_name[need])]
        if lacking:
            return Outcome(run=run, status="not run", error=f"needs {', '.join(lacking)}")
        with _locked(folder, shared=True), _locked(run.logs / name), Screen(self.console, 1) as screen:
            outcome = self._attempt(1, run, screen, Estimate([run]))
            screen.end(1, run, _said(outcome))
        return outcome

    def save_and_leave(self) -> None:
        """Ask the run that is at work to save, and wait until it has left."""
        self.stopped = True
        if (child := self._child) is not None and child.pid is not None and child.exitcode is None:
            os.kill(child.pid, signal.SIGTERM)
            child.join()

    def is_there(self, run: Run) -> bool:
        """Return whether a run has left its result, as far as its folder tells."""
        if self.tools[run.tool].config is None:
            return run.out.is_dir()
        return _finished(run, record_of(run))

    def _attempt(self, number: int, run: Run, screen: Screen, estimate: Estimate) -> Outcome:
        tool = self.tools[run.tool]
        record = record_of(run)
        try:
            run = self._with_rate(run)
        except (OSError, ValueError) as error:
            return Outcome(run=run, status="not run", error=str(error))
        try:
            if tool.config is not None and record is not None and _finished(run, record):
                if stale := _stale(run, record, tool.config):
                    why = (
                        f"{run.out}: holds a finished run of other settings ({'; '.join(stale)}). "
                        "Remove that folder to run it anew, or give another --out."
                    )
                    return Outcome(run=run, status="failed", error=why)
                return Outcome(run=run, status="recorded", seconds=record.cost.total_seconds, error=record.error)
            resuming = tool.config is not None and run.out.is_dir() and any(run.out.iterdir())
            argv = [*run.argv, "--resume"] if resuming else [*run.argv]
            screen.begin(number, run, resuming=resuming, left=estimate.left())
            before = run.log.stat().st_size if run.log.exists() else 0
            start = time.monotonic()
            code = self._wait(number, run, argv, screen, estimate)
            seconds = time.monotonic() - start
            outcome = self._judge(run, code, seconds, _read_from(run.log, before))
        except (OSError, ValueError) as error:
            return Outcome(run=run, status="failed", error=str(error))
        if outcome.status == "completed" and not resuming:
            estimate.timed(run, seconds)
        return outcome

    def _with_rate(self, run: Run) -> Run:
        """Return the run with the learning rate that its search has chosen, where it has one."""
        if run.search is None:
            return run
        choice = choose(run.search)
        if choice not in self._chosen:
            self._chosen.append(choice)
            self.console.print(choice.line(), markup=False, highlight=False, soft_wrap=True)
        return replace(run, argv=(*run.argv, f"--{RATE_FLAG.replace('_', '-')}", repr(choice.rate)))

    def _wait(self, number: int, run: Run, argv: list[str], screen: Screen, estimate: Estimate) -> int:
        """Run to the end and return the exit code, negative for a signal."""
        start = time.monotonic()
        with blocked_stops():
            self._child = child = fork(self.tools[run.tool].main, argv, name=run.name, log=run.log)
        try:
            while child.exitcode is None:
                child.join(POLL)
                elapsed = time.monotonic() - start
                line = f"asked to stop, saving: {_last_line(run.log)}" if self.stopped else _last_line(run.log)
                screen.tick(number, run, line=line, left=estimate.left(run, elapsed))
            return child.exitcode
        finally:
            self._child = None
            if child.exitcode is None:  # something went wrong here: the run is not left behind
                child.terminate()
                child.join()

    def _judge(self, run: Run, code: int, seconds: float, printed: str) -> Outcome:
        record = record_of(run)
        recorded = record.status if record else None
        if run.phase == "search" and code == 1 and record is not None and is_settled(record):  # the rate is too high
            return Outcome(run=run, status="completed", seconds=seconds, error=record.error)
        if code == 0 and (self.tools[run.tool].config is None or recorded == "completed"):
            return Outcome(run=run, status="completed", seconds=seconds)
        if (recorded == "interrupted" and code == INTERRUPTED) or (self.stopped and code != 1):
            by = record.error if record and record.error else "a signal"
            return Outcome(run=run, status="interrupted", seconds=seconds, error=f"interrupted by {by}")
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system does so when memory runs out" if name == "SIGKILL" else ""
            return Outcome(run=run, status="failed", seconds=seconds, error=f"killed by {name}{hint}")
        error = _error_line(printed) or f"exit code {code} and no completed record"
        return Outcome(run=run, status="failed", seconds=seconds, error=error)

    @contextmanager
    def _handled(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Pass the request on: the run saves and leaves, at a second Ctrl-C at once."""
        self.stopped = True
        if self._child is not None and self._child.pid is not None and self._child.exitcode is None:
            os.kill(self._child.pid, number)


def record_of(run: Run) -> RunRecord | None:
    """Return the record that a run has left, the last of several; None where there is none that can be read."""
    try:
        return read_record(run.records[-1])
    except (FileNotFoundError, ValueError):  # an unreadable record is written anew by the resumed run
        return None


def _finished(run: Run, record: RunRecord | None) -> bool:
    """Return whether a run has said all that it will; in a search that is also a loss that became infinite."""
    if record is None:
        return False
    return is_settled(record) if run.phase == "search" else record.status == "completed"


def _stale(run: Run, record: RunRecord, config: Callable[[list[str]], dict[str, Any]]) -> list[str]:
    """Return in what a finished run differs from the one that is wanted now."""
    wanted = json.loads(json.dumps(config([*run.argv])))
    found = differences(record.config, wanted)
    if FILE_ARCHITECTURE[0] in run.argv:  # the weights have it, whose sha256 is compared below
        found = [line for line in found if not line.startswith("backbone.") or line.startswith("backbone.image_size")]
    if run.data is not None and Path(record.data).resolve() != run.data.resolve():
        found.append(f"data: {record.data} -> {run.data}")
    weights = file_sha256(run.init) if run.init is not None else None
    if record.weights_sha256 != weights:
        found.append(f"weights_sha256: {_short(record.weights_sha256)} -> {_short(weights)}")
    return found


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none (random)"


def _said(outcome: Outcome) -> str:
    if outcome.status == "recorded":
        return f"recorded already, skipped{_remark(outcome)}"
    if outcome.status == "completed":
        return f"completed in {clock(outcome.seconds)}{_remark(outcome)}"
    return f"{outcome.status.upper()}: {outcome.error}"


def _remark(outcome: Outcome) -> str:
    return f"; this rate is out of the question: {outcome.error}" if outcome.error else ""


def _last_line(log: Path) -> str:
    try:
        text = _read_from(log, max(0, log.stat().st_size - 4096))
    except OSError:  # the child has not opened it yet
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""


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


@contextmanager
def _locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the folder; a run that outlives a killed suite holds it too, until it has saved."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{folder}: another benchmark is at work here, or a run that it left is still saving; "
                "wait for it, or give another --out."
            ) from error
        yield
