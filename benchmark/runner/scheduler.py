"""Carry out a matrix of runs: skip what is recorded, resume what was interrupted, go on when one fails."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmark.runner.attempt import Attempt, Outcome
from benchmark.runner.process import INTERRUPTED, STOPS, blocked_stops
from benchmark.runner.progress import Estimate, Screen, clock
from benchmark.runner.recorded import (
    is_finished,
    is_without_weights,
    needless,
    other_settings,
    record_of,
    spoilt_outputs,
)
from benchmark.study.run import SEARCHES, Run, with_lr
from benchmark.study.search import Choice, Search, choose, is_settled
from benchmark.study.tool import Tool
from engine.share import shares
from files.locking import LockedError, locked

POLL = 0.5  # seconds between looks at the runs
REDONE = (
    "is therefore done again, from its last checkpoint where it has one. Keep the transfers that started from the file "
    "of before: they count as recorded if the same weights come out."
)
GONE = "its weights are gone, and no run that is left needs them"
STOPPED_BEFORE = "stopped before"


def exit_code(outcomes: Sequence[Outcome], *, stopped: bool) -> int:
    """Return 0 where all results are there, 130 where someone stopped the suite, else 1."""
    if all(outcome.good for outcome in outcomes):
        return 0
    return INTERRUPTED if stopped else 1


class Suite:
    """One pass over a matrix."""

    def __init__(self, tools: Mapping[str, Tool], console: Console, *, at_once: int = 1) -> None:
        """`at_once`: how many runs work side by side, each with its share of the cores and one of the GPUs."""
        self.tools = tools
        self.console = console
        self.stopped = False
        """Whether SIGINT or SIGTERM came."""
        self._free = shares(at_once)
        self._at_work: list[Attempt] = []
        self._chosen: list[Choice] = []
        self._preloaded: set[str] = set()
        self._runs: Sequence[Run] = ()

    def carry_out(self, runs: Sequence[Run]) -> list[Outcome]:
        """Return how each run ended, in order; after a stop request the rest is `not run`.

        Runs start in order, as soon as what they build on has ended. Raises ValueError where a run that a killed suite
        left is still saving. Call with `folder` locked.
        """
        _see_none_left(runs)
        self._runs = runs
        estimate = Estimate(runs, at_once=len(self._free))
        for run in runs:
            if is_finished(run, record_of(run), runs):
                estimate.leave_out(run)
        waiting = dict(enumerate(runs, start=1))
        outcomes: dict[str, Outcome] = {}

        def end(number: int, outcome: Outcome) -> None:
            estimate.leave_out(outcome.run)
            outcomes[outcome.run.name] = outcome
            if outcome.error != STOPPED_BEFORE:
                screen.end(number, outcome.run, _said(outcome))

        with self._handled(), Screen(self.console, len(runs)) as screen, self._leaving_none_behind():
            while waiting or self._at_work:
                for number, run in [*waiting.items()]:
                    if (outcome := self._start(number, run, outcomes, screen, estimate)) is not None:
                        end(number, outcome)
                    if outcome is not None or any(attempt.number == number for attempt in self._at_work):
                        del waiting[number]
                for attempt in self._watch(screen, estimate):
                    end(attempt.number, self._ended(attempt, estimate))
        return [outcomes[run.name] for run in runs]

    def carry_one(self, name: str, runs: Sequence[Run], folder: Path) -> Outcome:
        """Return how one run of a matrix ended, for a job that others work beside; what it needs is seen in records.

        Signals are left to who started the job. Raises ValueError where a suite or another job of this run is at work.
        """
        by_name = {run.name: run for run in runs}
        run, self._runs = by_name[name], runs
        lacking = [need for need in run.needs if not self.is_there(by_name[need], runs)]
        if lacking:
            return Outcome(run=run, status="not run", error=f"needs {', '.join(lacking)}")
        for need in (*run.needs, *_searched(run)):
            if (why := self.other(by_name[need], runs)) is not None:
                return Outcome(run=run, status="not run", error=f"needs {need}. {why}")
        estimate = Estimate([run])
        with (
            locked(folder, shared=True),
            locked(run.logs / name),
            Screen(self.console, 1) as screen,
            self._leaving_none_behind(),
        ):
            outcome = self._begin(1, run, screen, estimate)
            while outcome is None:
                for attempt in self._watch(screen, estimate):
                    outcome = self._ended(attempt, estimate)
            screen.end(1, run, _said(outcome))
        return outcome

    def save_and_leave(self) -> None:
        """Ask the runs that are at work to save, and wait until they have left."""
        self.stopped = True
        for attempt in self._at_work:
            attempt.signal(signal.SIGTERM)
        for attempt in self._at_work:
            attempt.wait()

    def is_there(self, run: Run, runs: Sequence[Run]) -> bool:
        """Return whether a run of `runs` has left its result, as far as its folder tells."""
        if self.tools[run.tool].settings is None:
            return run.out.is_dir()
        return is_finished(run, record_of(run), runs)

    def other(self, run: Run, runs: Sequence[Run]) -> str | None:
        """Return what to do about a finished run of `runs` with other settings than are wanted now; None of others."""
        tool, record = self.tools[run.tool], record_of(run)
        if tool.settings is None or record is None or needless(run) is not None:
            return None
        if not is_finished(run, record, runs):
            return None
        try:
            run = run if run.search is None else with_lr(run, self._choice(run.search, run.tool).base_lr)
        except (OSError, ValueError):  # the search is to be carried out first
            return None
        try:
            other = other_settings(run, record, tool.later)
        except OSError:  # the weights that it starts from are to be made first
            return None
        return _refused(run, other) if other else None

    def others(self, runs: Sequence[Run]) -> str | None:
        """Return what `other` says of the first of `runs`, and of how many more it says something."""
        found = [why for run in runs if (why := self.other(run, runs)) is not None]
        more = f" The same holds for {len(found) - 1} more runs." if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else None

    def _start(
        self, number: int, run: Run, outcomes: Mapping[str, Outcome], screen: Screen, estimate: Estimate
    ) -> Outcome | None:
        """Begin a run if it is its turn; return its outcome where that is clear without it."""
        if self.stopped:
            return Outcome(run=run, status="not run", error=STOPPED_BEFORE)
        if lacking := [name for name in run.needs if name in outcomes and not outcomes[name].good]:
            return Outcome(run=run, status="not run", error=f"needs {', '.join(lacking)}")
        searched = _searched(run)
        for outcome in (outcomes[name] for name in searched if name in outcomes):
            if not outcome.good and is_settled(record_of(outcome.run)):  # one without a result is said by the choice
                error = f"needs the search run {outcome.run.name}. {outcome.error}"
                return Outcome(run=run, status="not run", error=error)
        if not self._free or not {*run.needs, *searched} <= outcomes.keys():
            return None
        return self._begin(number, run, screen, estimate)

    def _begin(self, number: int, run: Run, screen: Screen, estimate: Estimate) -> Outcome | None:
        """Begin a run; return its outcome where it has its record already, or cannot begin."""
        tool = self.tools[run.tool]
        if (why := needless(run)) is not None:
            return Outcome(run=run, status="recorded", error=why)
        if run.beyond is not None and run.beyond.wanted() is None:
            return Outcome(run=run, status="not run", error="needs the search at the learning rates nearer to the grid")
        try:
            run = self._with_lr(run)
        except (OSError, ValueError) as error:
            return Outcome(run=run, status="not run", error=str(error))
        try:
            record = record_of(run)
            if tool.settings is not None and record is not None and is_finished(run, record, self._runs):
                if other := other_settings(run, record, tool.later):
                    return Outcome(run=run, status="failed", error=_refused(run, other))
                said = GONE if is_without_weights(run, record, self._runs) else record.error
                return Outcome(run=run, status="recorded", seconds=record.cost.total_seconds, error=said)
            if run.tool not in self._preloaded:
                tool.preload()
                self._preloaded.add(run.tool)
            with blocked_stops():  # a signal finds the run among those at work
                attempt = Attempt(number, run, tool, self._free[0])
                self._at_work.append(attempt)
        except (OSError, ValueError) as error:
            return Outcome(run=run, status="failed", error=str(error))
        self._free.pop(0)
        estimate.take_in(run)
        if record is not None and record.status == "completed":
            for line in spoilt_outputs(run, record):
                screen.say(f"warning: {line.rstrip('.')}. {run.name} {REDONE}")
        screen.begin(number, run, resuming=attempt.resuming, left=estimate.left(self._elapsed()))
        return None

    def _with_lr(self, run: Run) -> Run:
        """Return the run with the learning rate that its search has chosen, where it has one."""
        if run.search is None:
            return run
        choice = self._choice(run.search, run.tool)
        if choice not in self._chosen:
            self._chosen.append(choice)
            self.console.print(choice.line(), markup=False, highlight=False, soft_wrap=True)
        return with_lr(run, choice.base_lr)

    def _choice(self, search: Search, tool: str) -> Choice:
        metric = self.tools[search.judge or tool].metric
        assert metric is not None  # of every tool that is searched
        return choose(search, metric)

    def _watch(self, screen: Screen, estimate: Estimate) -> list[Attempt]:
        """Wait for a moment, show how far the runs are, and return those that have ended."""
        if not self._at_work:
            return []
        wait([attempt.sentinel for attempt in self._at_work], timeout=POLL)
        said = "asked to stop, saving: " if self.stopped else ""
        lines = [(attempt.number, attempt.run, f"{said}{attempt.last_line()}") for attempt in self._at_work]
        screen.tick(lines, left=estimate.left(self._elapsed()))
        ended = [attempt for attempt in self._at_work if attempt.ended]
        for attempt in ended:
            self._at_work.remove(attempt)
            self._free.append(attempt.share)
        return ended

    def _ended(self, attempt: Attempt, estimate: Estimate) -> Outcome:
        try:
            outcome = attempt.outcome(stopped=self.stopped)
        except (OSError, ValueError) as error:
            return Outcome(run=attempt.run, status="failed", error=str(error))
        if outcome.status == "completed" and attempt.fresh:
            estimate.timed(attempt.run, outcome.seconds)
        return outcome

    def _elapsed(self) -> dict[str, float]:
        return {attempt.run.name: attempt.elapsed for attempt in self._at_work}

    @contextmanager
    def _leaving_none_behind(self) -> Iterator[None]:
        """Where something goes wrong in the suite itself, its runs save and leave."""
        try:
            yield
        finally:
            if self._at_work:
                self.save_and_leave()

    @contextmanager
    def _handled(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Pass the request on: the runs save and leave, at a second Ctrl-C at once."""
        self.stopped = True
        for attempt in self._at_work:
            attempt.signal(number)


def _searched(run: Run) -> tuple[str, ...]:
    """Return the runs whose results say which learning rate a run has, or whether it is asked for at all."""
    search = () if run.search is None else run.search.runs
    return (*search, *(() if run.beyond is None else run.beyond.runs))


def _refused(run: Run, other: Sequence[str]) -> str:
    return (
        f"{run.out}: holds a finished run of other settings ({'; '.join(other)}). "
        "Remove that folder to run it anew, or give another --out."
    )


def _see_none_left(runs: Sequence[Run]) -> None:
    """Raise ValueError where a run of a suite that was killed still holds the logs (benchmark.runner.process)."""
    for logs in {run.logs for run in runs}:
        try:
            with locked(logs):
                pass
        except LockedError as error:
            raise ValueError(
                f"{logs.parent}: a run that a killed benchmark left is still saving; wait, or give another --out."
            ) from error


def _said(outcome: Outcome) -> str:
    if outcome.status == "recorded" and outcome.run.beyond is not None and outcome.run.beyond.wanted() is False:
        return f"{outcome.error}"
    if outcome.status == "recorded":
        return f"recorded already, skipped{_remark(outcome)}"
    if outcome.status == "completed":
        return f"completed in {clock(outcome.seconds)}{_remark(outcome)}"
    return f"{outcome.status.upper()}: {outcome.error}"


def _remark(outcome: Outcome) -> str:
    if not outcome.error:
        return ""
    why = "this learning rate is out of the question: " if outcome.run.phase in SEARCHES else ""
    return f"; {why}{outcome.error}"
