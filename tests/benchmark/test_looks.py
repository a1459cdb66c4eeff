"""Alpha spent over declared looks: published bounds, seeds that wait, seeds that nobody declared."""

from typing import Any

import numpy as np
import pytest
from scipy import special

from benchmark.compare.comparison import compare
from benchmark.compare.contrast import ArmValues, Contrast, contrast, decide, judge
from benchmark.compare.looks import Look, levels, look_at, overall, spent
from benchmark.compare.records import open_store
from benchmark.report.about import about
from benchmark.report.tables import record_lines
from benchmark.report.verdict import task_verdict
from benchmark.study.plan import Plan, Planned, read_plans, write_plan
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1
from perf import coverage_designs as designs

LOOKS = (3, 5, 8)


def test_bounds_are_those_that_are_published() -> None:
    # Lan and DeMets' spending that resembles Pocock's, five equal looks, two-sided 5 % (Reboussin, DeMets, Kim and Lan,
    # Control. Clin. Trials 21, 2000: 2.4380, 2.4268, 2.4101, 2.3966, 2.3859)
    bounds = [-float(special.ndtri(level / 2)) for level in levels(0.05, (1, 2, 3, 4, 5))]
    assert bounds == pytest.approx([2.438, 2.4268, 2.4101, 2.3966, 2.3859], abs=5e-4)
    assert levels(0.05, (4,)) == pytest.approx((0.05,))


def test_all_looks_together_reject_as_often_as_they_may() -> None:
    rng = np.random.default_rng(0)
    sums = np.cumsum(rng.standard_normal((400_000, 8)), axis=1)
    level = levels(0.05, LOOKS)
    rejected = np.zeros(len(sums), dtype=bool)
    for count, alpha in zip(LOOKS, level, strict=True):
        rejected |= np.abs(sums[:, count - 1]) / count**0.5 > -special.ndtri(alpha / 2)
        # three standard errors of 5 % of 400,000 are 0.1 points
        assert rejected.mean() == pytest.approx(spent(0.05, count / 8), abs=0.0011)
    assert rejected.mean() == pytest.approx(0.05, abs=0.0011)


@pytest.mark.parametrize("alpha", [0.001, 0.05 / 3, 0.05, 0.4])
def test_the_overall_level_comes_back(alpha: float) -> None:
    for number, level in enumerate(levels(alpha, LOOKS), start=1):
        assert overall(level, Look(looks=LOOKS, number=number)) == pytest.approx(alpha, rel=2e-3)
    assert overall(alpha, Look(looks=(5,), number=1)) == alpha
    assert overall(1e-9, Look(looks=LOOKS, number=0)) == 1.0 == overall(0.9, Look(looks=LOOKS, number=1))


def test_which_seeds_count() -> None:
    assert look_at({5, 1}, LOOKS) == ({1, 5}, Look(looks=LOOKS, number=0))
    assert look_at(range(4), LOOKS) == ({0, 1, 2}, Look(looks=LOOKS, number=1, waiting=(3,)))
    assert look_at(range(8), LOOKS) == ({*range(8)}, Look(looks=LOOKS, number=3))
    assert look_at(range(10), LOOKS)[1].undeclared == (8, 9) and not look_at(range(10), LOOKS)[1].waiting
    assert look_at(range(5), (3,)) == ({0, 1, 2}, Look(looks=(3,), number=1, undeclared=(3, 4)))


def of(values: dict[Any, float], looks: tuple[int, ...], margin: float | None = None) -> Contrast:
    found = contrast(
        "t",
        metric=TOP1,
        arms=("mae", "labels"),
        first=ArmValues(by_seed=values, resampled_R={}),
        second=ArmValues(by_seed=dict.fromkeys(values, 0.0), resampled_R={}),
        images=None,
        looks=looks,
        margin=margin,
    )
    assert found is not None
    return found


def test_a_look_asks_for_more() -> None:
    values = {0: 1.0, 1: 1.4, 2: 1.1, 3: -50.0}
    alone, looked = judge([of({s: values[s] for s in range(3)}, ())])[0], judge([of(values, LOOKS)])[0]
    assert looked.per_seed == alone.per_seed and looked.p == alone.p and looked.interval == alone.interval
    assert alone.adjusted_p == pytest.approx(0.0105, abs=2e-4) and alone.verdict == "supported"
    # t with two degrees of freedom: p 0.0105; of 0.05 the first look has 0.0249, of 0.0211 it has 0.0105
    assert looked.adjusted_p == pytest.approx(0.0211, abs=2e-4) and looked.verdict == "supported"
    nearly = {0: 1.0, 1: 2.0, 2: 1.2}  # p 0.045
    assert judge([of(nearly, ())])[0].verdict == "supported"
    assert judge([of(nearly, LOOKS)])[0].verdict == "inconclusive"
    early = judge([of({0: 1.0, 1: 1.001}, LOOKS)])[0]
    assert early.verdict == "inconclusive" and early.adjusted_p == 1.0 and early.look == Look(looks=LOOKS, number=0)


def test_looks_count_pretrainings_where_they_are_crossed() -> None:
    values: dict[Any, float] = {(s, t): 1.0 + 0.1 * s + 0.01 * t * s for s in range(4) for t in range(2)}
    item = of(values, LOOKS)
    assert (item.n, item.transfers) == (3, 2) and item.look is not None and item.look.waiting == (3,)


def test_equivalence_is_looked_at_alike() -> None:
    values = {0: 0.1, 1: -0.1, 2: 0.05}
    alone, looked = judge([of(values, (), 1.0)])[0], judge([of(values, LOOKS, 1.0)])[0]
    assert alone.adjusted_p_equivalence is not None and looked.adjusted_p_equivalence is not None
    twice = overall(2 * alone.adjusted_p_equivalence, Look(looks=LOOKS, number=1))
    assert looked.adjusted_p_equivalence == pytest.approx(twice / 2)
    assert looked.adjusted_p_equivalence > alone.adjusted_p_equivalence


def test_a_study_of_one_look_that_is_given_more_seeds_says_so(study: Any) -> None:
    study.transfer("classification", "supervised", [60.0, 60.0, 60.0, 60.0, 60.0])
    study.transfer("classification", "mae", [60.0, 61.0, 59.0, 69.0, 69.5])

    def said(looks: tuple[int, ...]) -> tuple[list[str], str, str]:
        store = open_store(study.root, TASKS)
        object.__setattr__(store, "plans", (Plan(name="x", looks=looks),))
        comparison = compare(store)
        row = next(row for row in comparison.rows if row.primary)
        return about(comparison), task_verdict(row), "\n".join(record_lines(comparison))

    first, verdict, _ = said((3,))
    assert "Declared: verdicts are read at 3 seeds." in first
    assert (
        "Added though no look at them was declared, classification, MAE minus supervised: seeds 3, 4. They take no "
        "part in differences and verdicts; declare another study for them."
    ) in first
    assert "inconclusive; MAE minus supervised +0.00 (+0.00, +1.00, -1.00 by seed; three seeds)" in verdict
    first, verdict, records = said(LOOKS)
    assert "Declared: verdicts are read at 3, 5 and 8 seeds, over which alpha is spent." in first
    assert "after Holm's correction and for the looks (look 2 of 3)" in verdict and "Waiting" not in records
    first, _, records = said((4, 8))
    assert "Waiting for the next look, classification, MAE minus supervised: seeds 4." in records
    assert not any("Added" in line for line in first)
    assert any(line.startswith("No looks are declared: ") for line in said(())[0])


def test_looks_inflate_false_verdicts_of_simulated_studies_unless_alpha_is_spent() -> None:
    regime, rng = designs.SEEDS[0], np.random.default_rng(3)
    times_RN, found = designs.drawn(regime.images), {(): 0, LOOKS: 0}
    for _ in range(300):
        values = designs.study(regime, (0.6, 0.6), (8, 1), times_RN, rng)
        for looks in found:
            items = [designs.compared(values[:, :count], regime.images, looks=looks) for count in LOOKS]
            found[looks] += any(decide([item])[0].verdict != "inconclusive" for item in items)
    assert found[LOOKS] <= 26 < found[()]  # 5 % are 15, and three standard errors 11


def test_seeds_added_to_a_study_without_looks_are_named(study: Any, record: Any) -> None:
    def run(arm: str, seed: int) -> Planned:
        return Planned(folder=f"cars-{arm}-seed{seed}", phase="transfer", kind="transfer cars", task="cars", arm=arm)

    def plan(*seeds: int, arms: tuple[str, ...] = ("mae", "supervised")) -> list[str]:
        write_plan(study.root, Plan(name="x", runs=tuple(run(arm, seed) for seed in seeds for arm in arms)))
        return [item.folder for item in read_plans(study.root)[study.root].runs if item.added]

    study.root.mkdir()
    assert plan(0) == [] and plan(0, 1) == []  # nothing has run, so no verdict was read
    for arm, value in (("mae", 61.0), ("supervised", 60.0)):
        for seed in (0, 1, 2):
            study.add(f"cars-{arm}-seed{seed}", record("classification", arm, seed, {"top1": value + 0.1 * seed}))
    assert plan(0, 1) == []
    assert plan(0, 1, 2) == ["cars-mae-seed2", "cars-supervised-seed2"]
    assert plan(0, 1, 2, arms=("mae", "supervised", "random")) == [
        "cars-mae-seed2",
        "cars-supervised-seed2",
    ]  # a new arm
    said = about(compare(open_store(study.root, TASKS)))
    assert [line for line in said if "Added" in line] == [
        "Added after other seeds had run, and no look was declared, cars: seeds 2. Where they were added since a "
        "verdict did not settle, false verdicts are more than 5 %."
    ]
