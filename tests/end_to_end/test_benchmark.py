"""The real study through the real tools, with one step per run on a handful of scenes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import export_tables

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from rich.console import Console
from benchmark.matrix import Demo, counts
from benchmark.report import closing_report
from benchmark.suite import Suite, exit_code
from tools.run_benchmark import TOOLS

out = Path(sys.argv[1])
few = counts(classify=(16, 8, 8), dense=(8, 4, 1))
scenes = (("scenes-pretrain", ("--seed", "0", *few)), ("scenes-transfer", ("--seed", "1", *few)))
runs = Demo(out=out, seeds=(0,), scenes=scenes).runs()
short = ("--steps", "1", "--batch-size", "4")
runs = tuple(r if r.tool == "make_scenes" else replace(r, argv=(*r.argv, *short)) for r in runs)
suite = Suite(TOOLS, Console())
outcomes = suite.carry_out(runs, out)
print(closing_report(out, outcomes, seconds=1.0))
raise SystemExit(exit_code(outcomes, stopped=suite.stopped))
"""


@pytest.mark.slow
def test_the_study_runs_and_its_second_run_repeats_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    for expected in ("13 runs completed now", "11 were recorded already"):
        command = [sys.executable, "-c", SCRIPT, str(out)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert expected in done.stdout
        assert "Overall: " in done.stdout
    assert export_tables.main([str(out), "--format", "csv"]) == 0
    table = capsys.readouterr().out
    assert all(metric in table for metric in ("top1", "box_ap", "mask_ap", "miou"))
