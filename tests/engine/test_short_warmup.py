"""A warm-up that would cover the whole of a shortened run is shortened with it, and the run says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from classification.recipes import RECIPES
from engine.config import Duration, ScheduleConfig
from engine.recipe import departures, shortened, with_short_warmup
from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from tools import train_cls

RECIPE = RECIPES["mae_base"]  # 100 epochs, warm-up of 5


def with_run(length: Duration, **changes: object):
    config = RECIPE()
    return replace(config, run=replace(config.run, length=length, batch_size=100, accumulate=1, **changes))


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (Duration(30), 1),  # 5 of 100 epochs are a twentieth: 1.5 steps
        (Duration(500), 25),
        (Duration(5, "epochs"), 25),
        (Duration(1), 0),
    ],
)
def test_in_proportion(length: Duration, steps: int) -> None:
    """10,000 images in batches of 100: 100 steps an epoch, a warm-up of 500 steps, a run of 10,000."""
    config = with_run(length)
    short = with_short_warmup(config, RECIPE(), images=10_000)
    assert short.run.schedule.warmup == Duration(steps, "steps")
    (said,) = shortened(config, short)
    assert f"warm-up of 5 epochs would cover the whole run; it is shortened with the run, to {steps} steps" in said
    assert "run.schedule.warmup.unit: epochs -> steps" in departures(RECIPE, short)
    assert short == replace(config, run=short.run), "nothing else changes"


@pytest.mark.parametrize(
    ("length", "schedule"),
    [
        (Duration(501), None),  # longer than the warm-up
        (Duration(100, "epochs"), None),  # the recipe's own length
        (Duration(30), Duration(40)),  # --warmup was given
    ],
)
def test_elsewhere_it_stays(length: Duration, schedule: Duration | None) -> None:
    config = with_run(length)
    if schedule is not None:
        config = with_run(length, schedule=replace(config.run.schedule, warmup=schedule))
    short = with_short_warmup(config, RECIPE(), images=10_000)
    assert short is config and shortened(config, short) == ()


def test_a_recipe_that_is_all_warmup_keeps_a_step_of_its_own() -> None:
    recipe = with_run(Duration(10), schedule=ScheduleConfig(warmup=Duration(20)))
    config = replace(recipe, run=replace(recipe.run, length=Duration(4)))
    assert with_short_warmup(config, recipe, images=100).run.schedule.warmup == Duration(3)


def test_a_run_says_and_records_it(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["tiny", "--data", str(few_scenes.imagenet), "--steps", "3", "--batch-size", "4"]
    assert train_cls.main([*flags, "--out", str(tmp_path / "short")]) == 0
    said = capsys.readouterr().out
    assert "shortened with the run, to 0 steps" in said and "warning: the warm-up" not in said
    record = read_record(tmp_path / "short")
    assert any("would cover the whole run" in line for line in record.departures)
    assert record.config["run"]["schedule"]["warmup"] == {"value": 0, "unit": "steps"}
    assert train_cls.main([*flags, "--out", str(tmp_path / "short"), "--resume"]) == 0, "it is the same run"
    capsys.readouterr()
    assert train_cls.main([*flags, "--warmup", "9", "--out", str(tmp_path / "long")]) == 0
    assert "warning: the warm-up of 9 steps covers the whole run of 3" in capsys.readouterr().out
