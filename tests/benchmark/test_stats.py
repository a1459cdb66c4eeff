"""Hand-worked means and deviations."""

import math

import pytest

from benchmark.compare.stats import summarise


def test_mean_and_deviation_by_hand() -> None:
    summary = summarise([2.0, 4.0, 9.0])
    assert summary is not None
    assert (summary.n, summary.mean) == (3, 5.0)
    assert summary.sd == pytest.approx(math.sqrt((9 + 1 + 16) / 2), rel=1e-15)


def test_one_value_has_no_deviation_and_none_has_no_summary() -> None:
    summary = summarise([3.5])
    assert summary is not None and (summary.n, summary.mean, summary.sd) == (1, 3.5, None)
    assert summarise([]) is None
