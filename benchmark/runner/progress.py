"""What the suite shows while it works: one line per run, and how long the rest will take.

No thread redraws it (the suite forks): the suite's own loop calls `tick`.
"""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from benchmark.study.run import Run

LINE_EVERY = 15.0  # seconds between lines where the output is no terminal


class Estimate:
    """Seconds that are left, from the runs that have been timed and the stated times of the others."""

    def __init__(self, runs: Sequence[Run], *, at_once: int = 1) -> None:
        self._at_once = at_once
        self._waiting = {run.name: run for run in runs if run.beyond is None}
        self._timed: dict[str, list[float]] = {}
        self._took = 0.0
        self._guessed = 0.0

    def take_in(self, run: Run) -> None:
        """A run that has begun, counted on before or not."""
        self._waiting[run.name] = run

    def leave_out(self, run: Run) -> None:
        """A run that will not take time."""
        self._waiting.pop(run.name, None)

    def timed(self, run: Run, seconds: float) -> None:
        """A run that took `seconds` from start to end."""
        self.leave_out(run)
        self._timed.setdefault(run.kind, []).append(seconds)
        if run.seconds is not None:
            self._took += seconds
            self._guessed += run.seconds

    def left(self, elapsed: Mapping[str, float] | None = None) -> float | None:
        """Return the seconds left; `elapsed`: of the runs at work, by name. None while a kind's are not known."""
        total = longest = 0.0
        for run in self._waiting.values():
            expected = self._expected(run)
            if expected is None:
                return None
            mine = max(0.0, expected - (elapsed or {}).get(run.name, 0.0))
            total, longest = total + mine, max(longest, mine)
        return max(total / self._at_once, longest)

    def _expected(self, run: Run) -> float | None:
        if known := self._timed.get(run.kind):
            return sum(known) / len(known)
        if run.seconds is None:
            return None
        return run.seconds * (self._took / self._guessed if self._guessed else 1.0)


class Screen:
    """The suite's voice: a live bar on a terminal, lines elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self._total = total
        self._bar = Progress(
            TextColumn("{task.fields[left]}"),
            BarColumn(20),
            TextColumn("{task.description}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("", total=total, left="")
        self._ended = 0
        self._last_line = 0.0

    def __enter__(self) -> "Screen":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, number: int, run: Run, *, resuming: bool, left: float | None) -> None:
        """Say that run `number`, counted from 1, starts."""
        what = "continues" if resuming else "starts"
        self.say(f"[{number}/{self._total}] {run.name} {what}; {time_left(left)}")
        self._last_line = time.monotonic()

    def tick(self, at_work: Sequence[tuple[int, Run, str]], *, left: float | None) -> None:
        """Show the runs at work, each with its number and its last log line."""
        texts = [f"[{number}/{self._total}] {run.name}: {line}" for number, run, line in at_work]
        if self.console.is_terminal:
            shown = f"{self._total} runs, {time_left(left)}"
            room = max(20, self.console.width - len(shown) - 24)
            # markup is off in no column of rich: a bracket that opens a tag is escaped
            cut = "\n".join(text[:room].replace("[", "\\[") for text in texts)
            self._bar.update(self._task, description=cut, left=shown)
            self._bar.refresh()
        elif time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            for text in texts:
                self.say(f"{text} | {time_left(left)}")

    def end(self, number: int, run: Run, said: str) -> None:
        """Say how the run ended."""
        self.say(f"[{number}/{self._total}] {run.name}: {said}")
        self._ended += 1
        self._bar.update(self._task, completed=self._ended)
        self._bar.refresh()


def time_left(seconds: float | None) -> str:
    """Return how long the rest takes, in words."""
    return "time left not known yet" if seconds is None else f"about {clock(seconds)} left in all"


def clock(seconds: float) -> str:
    """Return seconds as `1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
