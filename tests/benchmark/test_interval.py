"""The quantile between the normal and Student's, its interval and p, by hand and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmark.compare.interval import Spread, interval, p_value, quantile
from perf import coverage


def spread(of_seeds: float, of_images: float, seeds: int, images: int | None) -> Spread:
    return Spread(factors=((of_seeds, seeds),), of_images=of_images, images=images)


def test_seeds_alone_are_students_t() -> None:
    # mean 2, sd sqrt(2), n 2: half width t * sqrt(2) / sqrt(2) = t; t(0.975, 1) = 12.706205 (any table)
    assert interval(2.0, spread(1.0, 0.0, 2, None)) == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-6)
    # sd 1, n 3, t(0.975, 2) = 4.302653
    half = 4.302653 / math.sqrt(3)
    assert interval(2.0, spread(1 / 3, 0.0, 3, None)) == pytest.approx((2 - half, 2 + half), abs=1e-6)
    values = [0.3, 1.1, 0.7, -0.2, 0.9]
    expected = stats.ttest_1samp(values, 0).pvalue
    assert p_value(np.mean(values).item(), spread(np.var(values, ddof=1).item() / 5, 0.0, 5, None)) == pytest.approx(
        expected, rel=1e-9
    )


def test_images_alone_are_nearly_normal() -> None:
    assert interval(1.0, spread(0.0, 0.25, 3, None)) == pytest.approx((1 - 1.959964 / 2, 1 + 1.959964 / 2), abs=1e-6)
    assert p_value(1.0, spread(0.0, 0.25, 3, 100)) == pytest.approx(2 * stats.t.sf(2.0, 99), rel=1e-9)
    assert p_value(1.0, spread(0.1, 0.15, 30, 5)) == pytest.approx(
        2 * stats.t.sf(2.0, 4), rel=1e-9
    )  # fewer images than seeds


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("share", [0.0, 0.04, 0.2, 0.6, 1.0])
def test_p_is_the_confidence_of_the_interval_that_reaches_zero(seeds: int, share: float) -> None:
    reach = float(quantile(0.05, share, seeds, 50))
    assert p_value(reach, spread(share, 1 - share, seeds, 50)) == pytest.approx(0.05, rel=1e-6)
    reaches = [float(quantile(alpha, share, seeds, 50)) for alpha in (1e-6, 0.01, 0.05, 0.3, 0.9)]
    assert reaches == sorted(reaches, reverse=True)


def test_no_spread_is_no_interval() -> None:
    assert interval(1.0, spread(0.0, 0.0, 3, None)) is None and p_value(1.0, spread(0.0, 0.0, 3, None)) is None
    assert interval(1.0, spread(0.0, 1.0, 1, None)) is None and p_value(1.0, spread(0.0, 1.0, 1, None)) is None
    assert p_value(0.0, spread(1.0, 1.0, 3, None)) == 1.0


def test_exact_coverage_stays_in_the_band_for_every_share() -> None:
    rows = [line.split("|")[1:-1] for line in coverage.exact_table().splitlines()[2:]]
    for row in rows:
        least, most = (float(text) for text in row[1].split(" to "))
        assert least >= 94.8 and most <= 97.0, row


@pytest.mark.slow
def test_simulated_studies_hold_the_truth_and_few_verdicts_are_false() -> None:
    # 1,200 studies: three standard errors of 95 % are 1.9 points
    regime = coverage.REGIMES[1]
    for seeds in (2, 3, 5):
        nulls = {}
        for task in ("top1", "miou"):
            found = coverage.simulate(task, regime, coverage.EFFECTS[task], seeds, 1200)
            true = coverage.truth(task, regime, coverage.EFFECTS[task])
            held = np.mean([coverage.covered(item, true) for item in found])
            assert 0.93 - 0.006 <= held <= 0.97 + 0.015, (task, seeds, held)
            level = (coverage.EFFECTS[task][1],) * 2
            nulls[task] = coverage.simulate(task, regime, level, seeds, 1200)
        assert coverage.false_verdicts(nulls) <= 5.0 + 1.9
