"""Equivalence within a declared margin: two one-sided tests by hand, their correction, and the fourth verdict."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.compare.comparison import compare
from benchmark.compare.contrast import ArmValues, Contrast, contrast, judge
from benchmark.compare.interval import Spread, equivalence_p, interval, p_value
from benchmark.compare.records import open_store
from benchmark.compare.seeds import holm
from benchmark.report.about import about
from benchmark.report.contrast_text import needed_text
from benchmark.report.tables import difference_grid
from benchmark.report.verdict import overall_verdict, task_verdict
from benchmark.study.plan import Plan
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1
from perf import coverage_designs as designs


def of(differences: list[float], margin: float | None, task: str = "t") -> Contrast:
    found = contrast(
        task,
        metric=TOP1,
        arms=("mae", "supervised"),
        first=ArmValues(by_seed=dict(enumerate(differences)), resampled_R={}),
        second=ArmValues(by_seed=dict.fromkeys(range(len(differences)), 0.0), resampled_R={}),
        images=None,
        margin=margin,
    )
    assert found is not None
    return found


def test_two_one_sided_tests_are_those_of_student() -> None:
    values = [0.3, -0.1, 0.2, 0.05, -0.2]
    upper = stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    assert of(values, 0.5).p_equivalence == pytest.approx(max(upper, lower), rel=1e-9)
    beyond = [value + 2 for value in values]
    assert of(beyond, 0.5).p_equivalence == pytest.approx(
        stats.ttest_1samp(beyond, 0.5, alternative="less").pvalue, rel=1e-9
    )
    assert of(values, None).p_equivalence is None


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_it_is_the_interval_of_90_percent_within_the_margin(share: float) -> None:
    rng = np.random.default_rng(0)
    spread = Spread(factors=((share, 3),), of_images=1 - share, images=80)
    for mean in rng.normal(0, 3, 60):
        low, high = interval(mean, spread, 0.1) or (0.0, 0.0)
        p = equivalence_p(mean, 4.0, spread)
        assert p is not None and (p <= 0.05) == (low >= -4 and high <= 4)
        two_sided = p_value(mean, spread)
        assert two_sided is not None and 0 <= p <= 1


def test_no_spread_is_no_equivalence() -> None:
    assert of([0.1], 1.0).p_equivalence is None and of([0.1, 0.1], 1.0).p_equivalence is None
    assert judge([of([0.1, 0.1], 1.0)])[0].verdict == "inconclusive"


def test_the_rounding_of_equal_predictions_is_no_spread() -> None:
    first = {seed: 100 * (7 + seed) / 48 for seed in range(3)}
    resampled = {seed: np.array([value, value + 1, value - 2]) for seed, value in first.items()}
    item = contrast(
        "t",
        metric=TOP1,
        arms=("mae", "supervised"),
        first=ArmValues(by_seed=first, resampled_R=resampled),
        second=ArmValues(
            by_seed={seed: value + 1e-14 * seed for seed, value in first.items()},
            resampled_R={seed: value_R + 1e-14 * np.arange(3) for seed, value_R in resampled.items()},
        ),
        images=48,
        margin=1.0,
    )
    assert item is not None and item.interval is None and item.p is None and item.p_equivalence is None
    assert judge([item])[0].verdict == "inconclusive"


def test_step_down_counts_tasks_and_not_hypotheses() -> None:
    # two tasks with both hypotheses: two can be true until both of one task are rejected
    assert holm([0.01, 0.02, 0.03, 0.5], [0, 1, 0, 1]) == pytest.approx([0.02, 0.04, 0.06, 0.5])
    assert holm([0.01, 0.9], [0, 0]) == pytest.approx([0.01, 0.9])  # of one task one alone is true
    assert holm([0.04, 0.01, 0.03]) == holm([0.04, 0.01, 0.03], [0, 1, 2])


def test_four_verdicts() -> None:
    alike, better, noise = [0.05, -0.04, 0.01, -0.02], [2.0, 2.1, 1.9, 2.05], [3.0, -4.0, 1.0, 0.5]
    found = judge([of(alike, 1.0, "a"), of(better, 1.0, "b"), of(noise, 1.0, "c"), of([-v for v in better], None, "d")])
    assert [item.verdict for item in found] == ["equivalent", "supported", "inconclusive", "contradicted"]
    assert [item.within_margin for item in found] == [True, False, False, False]
    assert found[0].needed is None and found[2].needed is not None
    assert found[2].needed_equivalence is not None and "; equivalence: about" in needed_text(found[2])
    assert judge([of(noise, 0.1)])[0].needed_equivalence is None  # the difference, 0.125, lies beyond the margin
    small = judge([of(better, 5.0)])[0]
    assert small.verdict == "supported" and small.within_margin


def test_a_study_says_its_margins(study: Any) -> None:
    study.transfer("classification", "supervised", [60.0, 60.1, 60.0])
    study.transfer("classification", "mae", [60.1, 60.0, 60.1])
    study.transfer("segmentation", "supervised", [30.0, 30.1, 30.0])
    study.transfer("segmentation", "mae", [31.1, 31.0, 31.1])
    store = open_store(study.root, TASKS)
    plan = Plan(name="x", margins={"classification": 1.0, "top1": 0.01, "miou": 5.0, "fid": 1.0})
    object.__setattr__(store, "plans", (plan,))
    comparison = compare(store)
    by_task = {row.task: row for row in comparison.rows if row.primary}
    text = task_verdict(by_task["classification"])
    assert "classification (top1): MAE transfers better than supervised: equivalent within the margin; " in text
    assert "; margin 1.00, p of a difference as large 0.0" in text  # the task goes before its metric
    assert ": MAE transfers better than supervised: supported, within the margin; " in task_verdict(
        by_task["segmentation"]
    )
    overall = overall_verdict(comparison)
    assert ": supported on segmentation; equivalent within the margin on classification" in overall
    cells = [row for row in difference_grid(comparison).rows if row[2] == "supervised"]
    assert [row[10] for row in cells if row[0] == "classification"] == [
        "MAE transfers better than supervised: equivalent within the margin"
    ]
    assert [row[10:12] for row in cells if row[1] == "miou"] == [
        ("MAE transfers better than supervised: supported, within the margin", "5.00")
    ]
    assert "Declared: differences below these margins are none: classification 1, top1 0.01, miou 5, fid 1." in about(
        comparison
    )
    assert "Margins of what is no task and no metric here: fid." in about(comparison)


def test_equivalence_is_found_in_a_simulated_study_where_it_is_true_and_not_where_it_is_not() -> None:
    regime, rng, found = designs.SEEDS[0], np.random.default_rng(5), {}
    times_RN = designs.drawn(regime.images)
    for name, share in (("alike", 0.6), ("at the margin", 0.45), ("apart", 0.3)):
        items = [
            designs.compared(designs.study(regime, (0.6, share), (5, 1), times_RN, rng), regime.images, margin=15.0)
            for _ in range(150)
        ]
        found[name] = sum(judge([item])[0].verdict == "equivalent" for item in items)
    assert found["alike"] > 120 and found["apart"] == 0
    assert found["at the margin"] <= 15  # 5 % are 7.5, and three standard errors 8


def test_what_settles_equivalence_by_hand() -> None:
    # seeds vary by 1, the difference is 0, the margin 1: the least n with (t(0.95, n - 1) + 0.8416)^2 / n <= 1; at 8
    # (1.895 + 0.842)^2 / 8 = 0.94, at 7 (1.943 + 0.842)^2 / 7 = 1.11
    (item,) = judge([of([1.0, -1.0, 0.0], 1.0)])
    assert item.needed_equivalence is not None and item.needed_equivalence.seeds == 8
