"""What the published recipes say of themselves: command, published numbers, hours, and in what they depart."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.compare.published import Published, check_published, published_rows
from detection.recipes.all import RECIPES
from detection.recipes.li2021 import LI2021
from detection.recipes.lvis import LVIS
from detection.recipes.vitdet import VITDET
from engine.recipe import departures

PUBLISHED = {**VITDET, **LI2021, **LVIS}
ARMS = ("supervised_in21k", "supervised", "random", "moco_v3", "beit", "mae")


def arm_of(name: str) -> str:
    """The start that a recipe is for first of all."""
    return next((arm for arm in ARMS if name.endswith(arm)), "mae")


def rows_of(name: str) -> dict[tuple[str, str], Published]:
    """The published rows that a run of the recipe is held against."""
    return {(row.arm, row.metric): row for row in published_rows() if row.recipe == name and row.task == "detection"}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_docstring(name: str) -> None:
    text = re.sub(r"\s+", " ", PUBLISHED[name].__doc__ or "")
    assert re.search(rf"`torchrun --nproc-per-node 8 tools/train_det\.py {name} --data coco .*--out runs/\w+`", text)
    assert ("--init " in text) == ("random" not in name)
    assert ("--init-resize-patch" in text) == ("huge" in name)
    assert re.search(r"box AP \d\d\.\d, mask AP \d\d\.\d .*\(.*table", text)
    hours = re.search(r"About ([\d,]+) A100-hours: ([\d.]+) s an image", text)
    if hours is None:
        assert "GPU-hours not published." in text
        return
    run = PUBLISHED[name]().run
    images = run.length.value * run.batch_size
    assert float(hours[1].replace(",", "")) == pytest.approx(images * float(hours[2]) / 3600, rel=0.01)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_stated_ap_is_that_of_the_table(name: str) -> None:
    """Every AP that a recipe states is a published row of it, and the other way round."""
    text = re.sub(r"\s+", " ", PUBLISHED[name].__doc__ or "")
    stated = re.search(r"box AP ([\d.]+), mask AP ([\d.]+)", text)
    assert stated is not None
    expected = {arm_of(name): stated.groups()}
    others = {"labels": "supervised", "BEiT": "beit", "ImageNet-21K": "supervised_in21k"}
    for start, box, mask in re.findall(
        r"[Ff]rom (labels|BEiT|ImageNet-21K)(?: \([^)]*\))? ([\d.]+) and ([\d.]+)", text
    ):
        expected[others[start]] = (box, mask)
    rows = rows_of(name)
    values = {(arm, metric): row.value for (arm, metric), row in rows.items() if not metric.endswith("_rare")}
    assert values == {
        (arm, metric): float(number)
        for arm, numbers in expected.items()
        for metric, number in zip(("box_ap", "mask_ap"), numbers, strict=True)
    }


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_run_is_held_against_its_row(name: str) -> None:
    """By the arm that the command in the docstring gives a record: its --arm, or else its --init-source."""
    text = re.sub(r"\s+", " ", PUBLISHED[name].__doc__ or "")
    source = re.search(r"--init-source (\w+)", text)
    arm = re.search(r" --arm (\w+) --out", text)
    metrics = {"box_ap": 40.0, "mask_ap": 30.0, "mask_ap_rare": 20.0}
    record: Any = SimpleNamespace(
        recipe=name,
        task="detection",
        metrics=metrics,
        arm=arm[1] if arm else None,
        weights_source=source[1] if source else "random",
        outputs=(),
        departures=getattr(PUBLISHED[name], "departs", ()),
        val_images=19_809 if "lvis" in name else 5_000,
    )
    run: Any = SimpleNamespace(record=record, choice=None, pretrained=False)
    measured = {
        (check.published.arm, check.published.metric): check for check in check_published([run]) if check.measured
    }
    assert measured.keys() >= {(arm_of(name), "box_ap"), (arm_of(name), "mask_ap")}
    for (_, metric), check in measured.items():
        assert check.published.recipe == name
        assert check.difference == pytest.approx(metrics[metric] - check.published.value)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_departures(name: str) -> None:
    config = PUBLISHED[name]()
    stated = departures(RECIPES[name], config)
    assert any("bfloat16" in way for way in stated) and any("seeds" in way for way in stated)
    assert any("Xavier" in way for way in stated) == name.endswith("norelpos_random")
    assert any("repeat factors" in way for way in stated) == ("lvis" in name)
    assert any("not published" in way for way in stated) == ("li2021" in name)
    # a quarter of the batch has a quarter of the rate, and both are said
    smaller = replace(config, run=replace(config.run, batch_size=16))
    assert smaller.run.optim.lr(16) == pytest.approx(config.run.optim.base_lr / 4)
    assert departures(RECIPES[name], smaller) == (*stated, "run.batch_size: 64 -> 16")
    # accumulation keeps the batch, and the rate with it
    shared = replace(config, run=replace(config.run, accumulate=8))
    assert shared.run.optim.lr(shared.run.batch_size) == config.run.optim.base_lr
