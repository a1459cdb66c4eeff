"""The simulations of docs/statistics.md start by the commands that they state."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["coverage", "coverage_designs", "coverage_groups"])
def test_the_command_of_a_simulation_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    text = (ROOT / f"perf/{name}.py").read_text(encoding="utf-8")
    words = next(line.split() for line in text.splitlines() if line.startswith("    python "))
    assert words[0] == "python" and name in words[-1]
    done = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--studies" in done.stdout
