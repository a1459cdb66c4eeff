"""Ranks of several arms: by hand, and in the tables."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmark.compare.comparison import compare
from benchmark.compare.contrast import ArmValues, Contrast, contrast
from benchmark.compare.ranks import rank_intervals
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.report.tables import rank_grid
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1

ARMS = ("a", "b", "c", "d")


def pair(mean: float, p: float | None) -> Contrast:
    found = contrast(
        "cars",
        metric=TOP1,
        arms=("x", "y"),
        first=ArmValues(by_seed={0: mean, 1: mean + 1}, resampled_R={}),
        second=ArmValues(by_seed={0: 0.0, 1: 1.5}, resampled_R={}),
        images=None,
    )
    assert found is not None
    return replace(found, mean=mean, p=p)


def test_an_arm_is_below_those_that_are_surely_better() -> None:
    pairs: dict[tuple[str, str], Contrast | None] = {
        ("a", "b"): pair(5.0, 0.001),
        ("a", "c"): pair(6.0, 0.001),
        ("a", "d"): pair(9.0, 0.001),
        ("b", "c"): pair(1.0, 0.4),
        ("b", "d"): pair(4.0, 0.012),  # the fourth smallest of six: 3 x 0.012
        ("c", "d"): pair(3.0, 0.03),  # 2 x 0.03 is above 0.05
    }
    assert rank_intervals(pairs, ARMS) == {"a": (1, 1), "b": (2, 3), "c": (2, 4), "d": (3, 4)}
    lower = {key: replace(item, metric=replace(TOP1, higher_is_better=False)) for key, item in pairs.items() if item}
    assert rank_intervals(lower, ARMS) == {"a": (4, 4), "b": (2, 3), "c": (1, 3), "d": (1, 2)}
    assert rank_intervals(dict.fromkeys(pairs), ARMS) == dict.fromkeys(ARMS, (1, 4))


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=6, max_size=6))
def test_ranks_stay_within_their_number(values: list[tuple[float, float]]) -> None:
    pairs = [(one, two) for i, one in enumerate(ARMS) for two in ARMS[i + 1 :]]
    ranks = rank_intervals({key: pair(*value) for key, value in zip(pairs, values, strict=True)}, ARMS)
    assert all(best >= 1 and worst <= 4 for best, worst in ranks.values())


def test_the_tables_have_them_from_four_arms_on(study: Any, record: Any) -> None:
    for arm, base in (("mae", 60.0), ("labels", 50.0), ("beit", 40.0), ("random", 10.0)):
        for seed in range(4):
            value = base + 0.2 * seed + 0.01 * base * (seed % 2)
            study.add(f"{arm}{seed}", record("classification", arm, seed, {"top1": value}))
    comparison = compare(open_store(study.root, TASKS), resamples=0)
    grid = rank_grid(comparison)
    assert grid is not None
    (row,) = grid.rows
    assert dict(zip(grid.head[2:], row[2:], strict=True)) == {
        "MAE": "1",
        "labels": "2",
        "BEiT": "3",
        "random init": "4",
    }
    assert "Ranks of the arms" in EXPORTS["md"](comparison) and "Ranks of the arms" in EXPORTS["html"](comparison)
