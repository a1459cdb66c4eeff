"""The kit: rows of measurements and checks, each in a process of its own with a time limit, and one table of all.

The table is rewritten after every row. A row has a share of the time that is left, so that what an early row does not
take is the later ones'. Called again with the same folder, the rows that came to their end are kept, and the others are
run again. This module needs the standard library alone; a row imports what it needs, and says what is missing.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perf.gpu.row import Row, read_lines, said_by
from perf.gpu.table import ROWS

ROOT = Path(__file__).resolve().parents[2]
NAME = "kit"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a row."""

    name: str
    complete: bool
    reason: str
    """Why it did not run, or did not come to its end."""
    seconds: float
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What it said: `what`, `result`, `numbers`."""


def device_of(wanted: str) -> tuple[str, str]:
    """Return cuda or cpu, and why it is the latter. Raises ValueError for a GPU that is asked for and not there."""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    if wanted == "cpu":
        return "cpu", "no CUDA device (--device cpu)"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.strip() == "True":
        return "cuda", ""
    why = (
        "no CUDA device" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["PyTorch does not run"])[-1]
    )
    if wanted == "cuda":
        raise ValueError(f"device cuda: {why}; `--device cpu` runs the small form.")
    return "cpu", why


def carry_out(out: Path, *, minutes: float, device: str, rows: Sequence[Row] = ROWS, at_once: int | None = None) -> int:
    """Run the rows that are missing in `out` and return the exit code: 0 all ran, 1 not all, 130 interrupted.

    One after the other, in the small form two at once, as nothing is learned from its times. Without a GPU the rows
    that need one do not count. Raises ValueError where `out` holds the rows of another device.
    """
    device, why = device_of(device)
    at_once = at_once or (2 if device == "cpu" else 1)
    results = _kept(out, device)
    left = [row for row in rows if row.name not in results]
    if results:
        print(f"{out}: {len(results)} rows are kept, {len(left)} are run.")
    end = time.monotonic() + 60 * minutes
    before = signal.signal(signal.SIGTERM, _interrupt)
    running: list[Running] = []
    try:
        while left or running:
            ended = [one.result() for one in running if one.ended()]
            running = [one for one in running if one.row.name not in {result.name for result in ended}]
            if left and len(running) < at_once:
                able = [row.share for row in left if device == "cuda" or row.small]
                row = left.pop(0)
                limit = row.share / max(row.share, sum(able)) * (end - time.monotonic())
                if device == "cpu" and not row.small:
                    ended.append(Result(name=row.name, complete=False, reason=f"not run: {why}", seconds=0.0))
                elif limit < 1:
                    reason = "not run: the minutes are over"
                    ended.append(Result(name=row.name, complete=False, reason=reason, seconds=0.0))
                else:
                    running.append(Running(row, out, device=device, limit=limit))
            for result in ended:
                results[result.name] = result
                _write(out, device, rows, results)
                told = result.reason or f"{len(result.lines)} lines"
                print(f"{result.name:<16}{result.seconds:6.1f} s  {told}", flush=True)
            time.sleep(0 if ended else 0.05)
    except KeyboardInterrupt:
        print(f"\nInterrupted; {out}/{NAME}.md has what there is. The same command goes on.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        for one in running:
            one.kill()
        _write(out, device, rows, results)
    needed = [row for row in rows if device == "cuda" or row.small]
    return 0 if all(results[row.name].complete for row in needed) else 1


class Running:
    """A row at work in a process of its own."""

    def __init__(self, row: Row, out: Path, *, device: str, limit: float) -> None:
        """Start it; it has `limit` seconds."""
        self.row, self.limit, self.said = row, limit, said_by(out, row.name)
        self.said.unlink(missing_ok=True)
        shutil.rmtree(out / "rows" / row.name, ignore_errors=True)
        self.said.parent.mkdir(parents=True, exist_ok=True)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-W", "ignore", "-m", "perf.gpu.table", row.name, row.run, device, str(out)]
        self.start = time.monotonic()
        with (out / "rows" / f"{row.name}.txt").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ended(self) -> bool:
        """Return whether it came to an end, or to its limit."""
        return self.process.poll() is not None or time.monotonic() - self.start > self.limit

    def result(self) -> Result:
        """Return what it said, and why it did not come to its end; what it has started is killed."""
        code = self.process.poll()
        self.kill()
        lines = read_lines(self.said)
        found = [line for line in lines if "what" in line]
        complete = any("complete" in line for line in lines)
        reasons = [line["reason"] for line in lines if "reason" in line]
        reason = ""
        if not complete:
            died = f"time limit of {self.limit:.0f} s" if code is None else f"its process ended with code {code}"
            reason = f"{'not finished' if found else 'not run'}: {(reasons or [died])[0]}"
        seconds = time.monotonic() - self.start
        return Result(name=self.row.name, complete=complete, reason=reason, seconds=seconds, lines=found)

    def kill(self) -> None:
        """End its process and all that it has started, with a moment to end it themselves."""
        for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)


def as_table(rows: Sequence[Row], results: dict[str, Result], *, device: str) -> str:
    """Return the table as Markdown: a line for each thing that a row said, and one for each row that did not end."""
    small = (
        "The small form on a CPU: tiny models, a step or two. It shows that a row runs; its times say nothing of speed."
    )
    head = small if device == "cpu" else "On a GPU, full size. What is not measured says why."
    lines = [head, "", "| row | what | result |", "|---|---|---|"]
    for row in rows:
        result = results.get(row.name) or Result(name=row.name, complete=False, reason="not run", seconds=0.0)
        lines += [f"| {row.name} | {_cell(line['what'])} | {_cell(line['result'])} |" for line in result.lines]
        if result.reason:
            lines.append(f"| {row.name} | {row.what} | **{_cell(result.reason)}** |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _kept(out: Path, device: str) -> dict[str, Result]:
    path = out / f"{NAME}.json"
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["device"] != device:
        raise ValueError(f"{path}: holds rows of {kept['device']}, and this is {device}; give another --out.")
    found = [Result(**values) for values in kept["rows"]]
    return {result.name: result for result in found if result.complete}


def _write(out: Path, device: str, rows: Sequence[Row], results: dict[str, Result]) -> None:
    """Write both forms, each by a rename, so that a kill leaves whole files."""
    values = {"device": device, "rows": [asdict(results[row.name]) for row in rows if row.name in results]}
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("json", json.dumps(values, indent=1) + "\n"), ("md", as_table(rows, results, device=device))):
        temporary = out / f".{NAME}.{suffix}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out / f"{NAME}.{suffix}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
