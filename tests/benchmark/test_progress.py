"""The time that is left, from the runs that have been timed."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.runner.progress import Estimate, clock, time_left
from benchmark.study.prepare import prepare
from tools.run_benchmark import STUDIES, TOOLS


def test_estimate_learns_from_timed_runs(tmp_path: Path) -> None:
    runs = prepare("demo", TOOLS, studies=STUDIES, out=tmp_path, seeds=(0,)).runs
    estimate = Estimate(runs)
    seconds = {run.name: run.seconds or 0.0 for run in runs}
    guessed = sum(seconds.values())
    assert estimate.left() == pytest.approx(guessed)
    estimate.timed(runs[0], 2 * seconds[runs[0].name])  # twice as slow as guessed: so is the rest
    assert estimate.left() == pytest.approx(2 * (guessed - seconds[runs[0].name]))
    assert estimate.left({runs[2].name: 50.0}) == pytest.approx(2 * (guessed - seconds[runs[0].name]) - 50)
    side_by_side = Estimate(runs, at_once=2)
    assert side_by_side.left() == pytest.approx(guessed / 2)
    for run in runs[:-1]:
        side_by_side.leave_out(run)
    assert side_by_side.left() == seconds[runs[-1].name]  # one run takes what it takes
    unknown = Estimate([replace(runs[4], seconds=None), replace(runs[5], seconds=None, name="other")])
    assert unknown.left() is None and time_left(None) == "time left not known yet"
    unknown.timed(runs[4], 7.0)
    assert unknown.left() == 7.0  # of the same kind
    assert (clock(59.6), clock(3725)) == ("1:00", "1:02:05")
