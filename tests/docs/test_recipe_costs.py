"""The costs of recipes that the site shows: those of the recipes as they are now."""

from types import SimpleNamespace

import pytest

from docs import recipe_costs
from mae_transfer.tasks import TASKS

AGAIN = "is another recipe now; run python docs/recipe_costs.py"


def test_what_is_kept_is_of_the_recipes_as_they_are_now() -> None:
    kept, now = recipe_costs.read(), {name: recipe for name, _, recipe in recipe_costs.planned_recipes()}
    assert kept.keys() <= now.keys(), f"{kept.keys() - now.keys()}: no recipe any more; run python docs/recipe_costs.py"
    for name, row in kept.items():
        assert row["config"] == recipe_costs.digest(now[name]()), f"{name} {AGAIN}"
    assert {"mae/mae_large", "classification/mae_base", "detection/vitdet_large"} <= kept.keys()


@pytest.mark.parametrize(
    "name", ["mae/tiny", *(pytest.param(each, marks=pytest.mark.sweep) for each in recipe_costs.read())]
)
def test_a_plan_of_today_is_the_one_that_is_kept(name: str) -> None:
    spec, recipe = next((spec, recipe) for each, spec, recipe in recipe_costs.planned_recipes() if each == name)
    assert recipe_costs.planned(name, spec, recipe()) == recipe_costs.read()[name], "python docs/recipe_costs.py --all"


def test_the_most_images_that_fit() -> None:
    asked: list[int] = []

    def at(images: int) -> SimpleNamespace:
        asked.append(images)
        return SimpleNamespace(images=images, peak=10 * images)

    sizes = [1, 2, 4, 8, 16, 32, 64]
    assert recipe_costs.largest(sizes, at, 85).images == 8 and asked == [8, 32, 16]
    assert recipe_costs.largest(sizes, at, 10**6).images == 64
    assert recipe_costs.largest(sizes, at, 5).peak == 10  # not even one: what one needs


def test_cells_by_hand() -> None:
    row = {
        "parameters": 1_500_000,
        "forward_macs": 2_000_000_000,
        "training_macs": 6_000_000_000,
        "images_at_once": None,
        "bytes": 90 * 2**30,
        "samples": 10**9,
    }
    spec = TASKS["mae"]
    lines = recipe_costs.table(spec, {"mae/tiny": row, "mae/small": {**row, "samples": None, "images_at_once": 2}})
    # 2 FLOPs x 6e9 MACs x 1e9 samples = 12 EFLOPs
    assert "| `tiny` | 1.50 | 4.00 | 12.00 | not even one | 90.0 | 1,000,000,000 | 12 |" in lines
    assert "| `small` | 1.50 | 4.00 | 12.00 | 2 | 90.0 | - | - |" in lines
    assert f"| `mae_huge` |{' not planned |' * 7}" in lines
