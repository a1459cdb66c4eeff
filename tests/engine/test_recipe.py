"""Departures of a run from its recipe."""

from dataclasses import replace

from engine.config import Duration
from engine.recipe import departs, departures


def test_departures_name_what_a_run_changed_and_what_the_recipe_did(toy_config):
    @departs("its data is a toy")
    def recipe():
        return toy_config

    optim = replace(toy_config.run.optim, base_lr=0.25)
    run = replace(toy_config.run, optim=optim, length=Duration(3), seed=9, workers=5)
    assert departures(recipe, toy_config) == ("its data is a toy",)
    assert departures(recipe, replace(toy_config, run=run)) == (
        "its data is a toy",
        f"run.length.value: {toy_config.run.length.value} -> 3",
        f"run.optim.base_lr: {toy_config.run.optim.base_lr} -> 0.25",
    )
