"""Every recipe on a CUDA device that is not there (tests/pretend_cuda.py): trained, evaluated, drawn and predicted.

Recipes are made small. What mixes devices raises, and the numbers are those of a CPU up to the order of sums, though
attention takes the way of a GPU. `pytest -m gpu` does the same on a device that is there.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detection.config import TestConfig
from engine.records.record import RunRecord
from engine.spec import TaskSpec
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tests.on_device import Where, need, probed, probed_densely, trained
from tests.smaller import distinct, smaller

RECIPES = distinct(TASKS)
TOOLS = {spec.tool for spec in TASKS.values() if spec.recipes}
FAST = {next(name for name, (spec, _) in RECIPES.items() if spec.tool == tool) for tool in TOOLS}
VARIANTS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "mae-pixels": ("mae", "tiny", lambda c: replace(c, target="pixels", loss_on="all", mask_token="encoder")),
    "mae-pca": ("mae", "tiny", lambda c: replace(c, target="pca", sampling="block")),
    "mae-tokens": ("mae", "tiny", lambda c: replace(c, target="tokens", sampling="grid", repeats=2)),
    "classification-ema": ("classification", "tiny", lambda c: replace(c, run=replace(c.run, ema_decay=0.9))),
    "detection-test": (
        "detection", "tiny", lambda c: replace(c, test=TestConfig(flip=True, scales=(1.0, 0.5), soft_nms="linear"))
    ),
    "segmentation-test": (
        "segmentation", "tiny", lambda c: replace(c, test_scales=(1.0, 1.5), test_flip=True, boundary_iou=True)
    ),
}  # fmt: skip
CASES = {name: (spec, recipe, None) for name, (spec, recipe) in RECIPES.items()} | {
    name: (TASKS[task], recipe, change) for name, (task, recipe, change) in VARIANTS.items()
}
# PyTorch's own kernels of attention stand in for those of the CPU: sums in another order, through two steps of AdamW,
# whose first ones divide small gradients by themselves
CLOSE = {"rel": 1e-3, "abs": 1e-4}


def config_of(name: str, folder: Path) -> tuple[TaskSpec, Any]:
    spec, recipe, change = CASES[name]
    config = spec.recipes[recipe]()
    return spec, smaller(config if change is None else change(config), folder)


def compared(name: str, scenes: ScenesIndex, folder: Path, *, other: Where) -> None:
    spec, config = config_of(name, folder)
    places: tuple[Where, Where] = ("cpu", other)
    here, there = (trained(spec, config, scenes, folder / where, where=where) for where in places)
    assert there.losses == pytest.approx(here.losses, **CLOSE)


def probes_compared(scenes: ScenesIndex, folder: Path, *, other: Where) -> None:
    places: tuple[Where, Where] = ("cpu", other)
    made: list[list[RunRecord]] = [probed(scenes, folder / where, where=where) for where in places]
    for here, there in zip(*made, strict=True):
        assert there.metrics["top1"] == pytest.approx(here.metrics["top1"], abs=100 / 16)  # an image of the sixteen


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.sweep) for name in CASES]
)
def test_a_recipe(name: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    compared(name, few_scenes, tmp_path, other="pretended")


def test_probes(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    probes_compared(few_scenes, tmp_path, other="pretended")


def dense_probes_compared(scenes: ScenesIndex, folder: Path, *, other: Where) -> None:
    places: tuple[Where, Where] = ("cpu", other)
    made: list[list[RunRecord]] = [probed_densely(scenes, folder / where, where=where) for where in places]
    for here, there in zip(*made, strict=True):
        assert there.metrics == pytest.approx(here.metrics, abs=1)  # percent; single pixels tie or nearly


@pytest.mark.sweep
def test_dense_probes(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    dense_probes_compared(few_scenes, tmp_path, other="pretended")


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_recipe_on_a_gpu(name: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    need("cuda")
    compared(name, few_scenes, tmp_path, other="cuda")


@pytest.mark.gpu
def test_probes_on_a_gpu(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    need("cuda")
    probes_compared(few_scenes, tmp_path, other="cuda")


@pytest.mark.gpu
def test_dense_probes_on_a_gpu(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    need("cuda")
    dense_probes_compared(few_scenes, tmp_path, other="cuda")
