"""The published hours beside a plan."""

from dataclasses import replace

import pytest

from engine.config import Duration
from pretraining.mae.config import MAEConfig
from pretraining.mae.published_hours import published_hours
from pretraining.recipes import RECIPES
from tools import plan_run

HERE = ", the setting planned here"


def recipe(name: str) -> MAEConfig:
    made = RECIPES[name]()
    assert isinstance(made, MAEConfig)
    return made


def here(config: MAEConfig) -> list[str]:
    return [line.split(" hours")[0].strip() for line in published_hours(config) if line.endswith(HERE)]


@pytest.mark.parametrize(
    ("name", "hours"),
    [("mae_large", ["31.0"]), ("mae_large_800", ["15.4"]), ("mae_huge_800", ["34.5"]), ("mae_huge", [])],
)
def test_the_hours_of_a_recipe(name: str, hours: list[str]) -> None:
    config = recipe(name)
    assert here(config) == hours
    for other in (
        replace(config, repeats=4),
        replace(config, mask_ratio=0.5),
        replace(config, run=replace(config.run, batch_size=1024)),
        replace(config, run=replace(config.run, length=Duration(800))),
    ):
        assert here(other) == []
    encoder = replace(recipe("mae_huge_800"), mask_token="encoder")
    assert here(encoder) == ["119.6"] and here(replace(recipe("mae_large_800"), decoder_depth=1)) == ["11.6"]


def test_all_hours_of_a_vit_are_said_with_their_source() -> None:
    said = published_hours(recipe("mae_huge"))
    assert said[0].startswith("published by MAE's authors (arXiv 2111.06377) on other hardware, 128 TPU-v3 cores")
    assert said[1:] == [
        "     119.6 hours: 800 epochs, 8 decoder blocks, mask tokens in the encoder (table 2, estimated by the authors "
        "from 10 epochs)",
        "      34.5 hours: 800 epochs, 8 decoder blocks (table 2)",
        "      29.3 hours: 800 epochs, 1 decoder block (table 2)",
    ]
    assert [line.split()[0] for line in published_hours(recipe("mae_large"))[1:]] == ["31.0", "42.4", "15.4", "11.6"]
    assert published_hours(recipe("mae_base")) == published_hours(RECIPES["moco_v3_base"]()) == []


@pytest.mark.sweep
@pytest.mark.slow
def test_a_plan_has_them_beside_its_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mae_large_800", "--gpus", "256", "--gpu-memory", "80", "--images", "1281167", "--tflops", "300"]
    assert plan_run.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "an assumption" in printed and "15.4 hours: 800 epochs, 8 decoder blocks (table 2)" + HERE in printed
