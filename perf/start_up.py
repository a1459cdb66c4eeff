"""Seconds and memory until a command answers that needs no torch: help, a typo, a missing path, tables of few records.

    python perf/start_up.py

Beside them `python -c "import torch"`, the peer: a command that imports it cannot be faster. Commands alternate, so
that other load hits all; printed are the best of the repeats and the peak resident set.
"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[1]
PEER = "import torch"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    repeats: int = 5
    """Of every command."""


def commands() -> dict[str, list[str]]:
    """Return the command lines by what a table calls them."""
    python, tools = sys.executable, str(ROOT / "tools")
    return {
        PEER: [python, "-c", PEER],
        "train_cls --help": [python, f"{tools}/train_cls.py", "--help"],
        "train_det tiny --help-all": [python, f"{tools}/train_det.py", "tiny", "--help-all"],
        "train_seg tinny": [python, f"{tools}/train_seg.py", "tinny"],
        "pretrain tiny --data nowhere": [python, f"{tools}/pretrain.py", "tiny", "--data", "nowhere", "--out", "o"],
        "export_tables --help": [python, f"{tools}/export_tables.py", "--help"],
        "export_tables nowhere": [python, f"{tools}/export_tables.py", "nowhere"],
        "run_benchmark demo --status": [
            *(python, f"{tools}/run_benchmark.py", "demo", "--status", "--out", f"{tempfile.gettempdir()}/none"),
        ],
    }


def measured(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes, and its peak resident set in MB."""
    start = time.perf_counter()
    pid = os.posix_spawn(
        command[0],
        command,
        {**os.environ, "PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)],
    )
    _, _, usage = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def main(args: Args) -> None:
    """Print the table."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.repeats):
        for name, command in commands().items():
            found.setdefault(name, []).append(measured(command))
    best = {name: (min(s for s, _ in each), max(m for _, m in each)) for name, each in found.items()}
    for name, (seconds, memory) in best.items():
        print(f"{name:32} {seconds:5.2f} s ({best[PEER][0] / seconds:4.1f} x as fast) {memory:6.0f} MB")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
