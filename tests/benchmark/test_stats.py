"""Hand-worked means, deviations, paired differences and t intervals."""

import math

import pytest

from benchmark.stats import paired_difference, summarise


def test_mean_and_deviation_by_hand() -> None:
    summary = summarise([2.0, 4.0, 9.0])
    assert summary is not None
    assert (summary.n, summary.mean) == (3, 5.0)
    assert summary.sd == pytest.approx(math.sqrt((9 + 1 + 16) / 2), rel=1e-15)


def test_one_value_has_no_deviation_and_none_has_no_summary() -> None:
    summary = summarise([3.5])
    assert summary is not None and (summary.n, summary.mean, summary.sd) == (1, 3.5, None)
    assert summarise([]) is None


def test_difference_is_paired_by_seed() -> None:
    # the means differ by 1.5, the common seeds 1 and 2 by 3 and 1
    difference = paired_difference({0: 1.0, 1: 5.0, 2: 6.0}, {1: 2.0, 2: 5.0, 7: 0.5})
    assert difference is not None
    assert difference.per_seed == {1: 3.0, 2: 1.0}
    assert (difference.n, difference.mean) == (2, 2.0)
    # sd sqrt(2), n 2: half width t * sqrt(2) / sqrt(2) = t; t(0.975, 1) = 12.706205 (any table)
    assert difference.interval is not None
    assert difference.interval == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-6)


def test_three_seeds_by_hand() -> None:
    difference = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    # sd 1, n 3, t(0.975, 2) = 4.302653
    assert difference is not None
    half = 4.302653 / math.sqrt(3)
    assert difference.interval == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_one_common_seed_has_no_interval_and_none_no_difference() -> None:
    difference = paired_difference({0: 2.0}, {0: 1.0})
    assert difference is not None and difference.interval is None and difference.mean == 1.0
    assert paired_difference({0: 2.0}, {1: 1.0}) is None
