"""Means and standard deviations, sign flips and Holm, by hand."""

import math

import pytest

from benchmark.compare.seeds import holm, sign_flips, summarise


def test_mean_and_deviation_by_hand() -> None:
    summary = summarise([2.0, 4.0, 9.0])
    assert summary is not None
    assert (summary.n, summary.mean) == (3, 5.0)
    assert summary.sd == pytest.approx(math.sqrt((9 + 1 + 16) / 2), rel=1e-15)


def test_one_value_has_no_deviation_and_none_has_no_summary() -> None:
    summary = summarise([3.5])
    assert summary is not None and (summary.n, summary.mean, summary.sd) == (1, 3.5, None)
    assert summarise([]) is None


def test_sign_flips_by_hand() -> None:
    # 1, 2, 3: |sum| 6 is reached by +++ and --- alone; 1, 1, -1: |sum| 1 or more by all eight
    exact = sign_flips([1.0, 2.0, 3.0])
    assert exact is not None and (exact.p, exact.smallest) == (0.25, 0.25)
    other = sign_flips([1.0, 1.0, -1.0])
    assert other is not None and other.p == 1.0
    six = sign_flips([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert six is not None and six.p == six.smallest == 2 / 64
    # 0.2, -0.1, -0.2: |sum| 0.1 or more by all eight, though the rounding of the subtractions is 1e-14
    rounded = sign_flips([71.6 - 71.4, 70.9 - 71.0, 70.7 - 70.9])
    assert rounded is not None and rounded.p == 1.0
    assert sign_flips([1.0]) is None and sign_flips([1.0] * 17) is None


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
