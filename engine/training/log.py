"""What a run tells people while it trains: progress, ETA and speed, metrics.csv, TensorBoard, a tracker; on rank 0."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch.utils.tensorboard import SummaryWriter

from engine.records.metrics_file import Mark, MetricsFile
from engine.records.record import TENSORBOARD
from engine.training.trackers import Tracker

WAIT_WARNING = 0.20  # share of the time spent waiting for data above which the log warns


class RunLog:
    """The voice of one run. On a terminal the progress line lives; elsewhere a line is printed now and then."""

    def __init__(
        self,
        out: Path,
        *,
        label: str,
        total_steps: int,
        first_step: int,
        metrics: MetricsFile | None,
        workers: int,
        tracker: Tracker | None = None,
    ) -> None:
        """`first_step` > 0 continues the files of an earlier session; `workers` processes load data.

        Without `metrics`, on the processes beside the first, nothing is said or written.
        """
        speaks = metrics is not None
        self.console = Console(file=sys.stdout, highlight=False, quiet=not speaks, soft_wrap=True)
        self.label = label
        self.total, self.workers = total_steps, workers
        self.first = first_step
        self.speaks = speaks
        self._metrics = metrics
        self._tracker = tracker
        self._writer: SummaryWriter | None = None
        self._bar: Progress | None = None
        self._bar_task = TaskID(0)
        self._warned = False
        self._lines = evaluation_lines(label, self.say)
        self._began = time.monotonic()
        self._last_line = self._began
        if speaks:
            self._writer = SummaryWriter(str(out / TENSORBOARD), purge_step=first_step + 1 if first_step else None)

    def say(self, text: str) -> None:
        """Print a line, above the progress line where there is one."""
        self.console.print(text, markup=False)

    def start(self) -> None:
        """Show the progress line."""
        self._began = time.monotonic()
        if self.speaks and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[state]}"))
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar_task = self._bar.add_task(self.label, total=self.total, completed=self.first, state="")
            self._bar.start()

    def step(self, step: int, values: Mapping[str, float], *, write: bool) -> None:
        """Move the progress line to `step` steps done; `write` adds a row to the files and, off a terminal, a line.

        `values` holds loss, lr, images_per_second and data_wait besides the named losses.
        """
        if not self.speaks:
            return
        state = self._state(step, values)
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=step, state=state)
        now = time.monotonic()
        if self._bar is None and (step == self.total or step == self.first + 1 or now - self._last_line > 10):
            self._last_line = now
            self.say(f"{self.label} {state}")
        if write:
            self.scalars(step, values)
            self._warn_of_waiting(values.get("data_wait", 0.0), step)

    def evaluating(self, done: int, total: int) -> None:
        """Say how many of how many images are evaluated, on the progress line or in a line now and then."""
        if self._bar is not None:
            self._bar.update(self._bar_task, state=f"evaluating {done}/{total}")
        elif self.speaks:
            self._lines(done, total)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to metrics.csv (long form: step, name, value), to TensorBoard and to the tracker."""
        if self._metrics is None:
            return
        self._metrics.add(step, values)
        if self._tracker is not None:
            self._tracker.log(step, values)
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:  # of its thread: a full disk; the numbers are in metrics.csv
            self.say(f"warning: TensorBoard's file is not complete, and gets no more: {error}")
            self._writer = None

    def mark(self) -> Mark:
        """Return what metrics.csv is now; what knows nothing on the other processes."""
        return self._metrics.mark() if self._metrics is not None else Mark()

    def close(self, status: str) -> None:
        """Take the progress line away and flush the files; `status` is the run's, for the tracker."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._tracker is not None:
            self._tracker.close(status)
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:  # a full disk; the record of it is still to be written
                self.say(f"warning: TensorBoard's file is not complete: {error}")

    def _state(self, step: int, values: Mapping[str, float]) -> str:
        done = step - self.first
        left = (time.monotonic() - self._began) / max(1, done) * (self.total - step)
        return (
            f"{step}/{self.total} loss {values['loss']:.4f} lr {values['lr']:.2e} "
            f"{values['images_per_second']:.0f} img/s data {values['data_wait']:.0%} ETA {duration(left)}"
        )

    def _warn_of_waiting(self, share: float, step: int) -> None:
        # the first steps wait for the loader to start
        if share > WAIT_WARNING and not self._warned and step - self.first >= 20:
            self._warned = True
            self.say(
                f"warning: {share:.0%} of the time goes to waiting for data (limit {WAIT_WARNING:.0%}); raise "
                f"--workers ({self.workers} now), shrink images that are far larger than they are trained at, or put "
                "them on a faster disk."
            )


class Meter:
    """Seconds per step and the share of them spent waiting, smoothed over about the last fifty steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0
        self._mean = 0.0
        self._wait = 0.0
        self._count = 0

    def begin(self) -> None:
        """Start the clock of a step."""
        self._start = time.monotonic()

    def end(self, waited: float) -> None:
        """Stop it; `waited` of its seconds went to waiting for data."""
        self.seconds = time.monotonic() - self._start
        self._count += 1
        weight = max(1 / self._count, 0.02)
        self._mean += weight * (self.seconds - self._mean)
        self._wait += weight * (waited - self._wait)

    def rates(self, batch_size: int) -> dict[str, float]:
        """Return images_per_second and data_wait, a share."""
        return {"images_per_second": batch_size / self._mean, "data_wait": self._wait / self._mean}


def evaluation_lines(label: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a reporter of (done, total), 0 done at the start, that says a line with the ETA every ten seconds."""
    began = last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal began, last
        now = time.monotonic()
        if not done:
            began = last = now
        elif now - last > 10:
            last = now
            say(f"{label} evaluating {done}/{total} images, ETA {duration((now - began) / done * (total - done))}")

    return report


def duration(seconds: float) -> str:
    """Return seconds as `1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
