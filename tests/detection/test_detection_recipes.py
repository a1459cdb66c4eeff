"""What the published recipes say of themselves: command, published numbers, hours, and in what they depart."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from detection.li2021 import LI2021
from detection.lvis import LVIS
from detection.recipes import RECIPES
from detection.vitdet import VITDET
from engine.recipe import departures

PUBLISHED = {**VITDET, **LI2021, **LVIS}
TABLE = Path(__file__).resolve().parents[2] / "benchmark" / "published.yaml"


def published() -> dict[str, dict[str, float]]:
    """AP from MAE, of labels or of random weights, by recipe."""
    blocks = {block["recipe"]: block["rows"] for block in yaml.safe_load(TABLE.read_text(encoding="utf-8"))}
    found = {}
    for name in PUBLISHED:
        arm = next((arm for arm in ("supervised", "random", "moco_v3") if name.endswith(arm)), "mae")
        rows = blocks.get(name.removesuffix(f"_{arm}"), [])
        found[name] = {row["metric"]: row["value"] for row in rows if row["arm"] == arm}
    return {name: values for name, values in found.items() if values}


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


@pytest.mark.parametrize(("name", "values"), published().items())
def test_stated_ap_is_that_of_the_table(name: str, values: dict[str, float]) -> None:
    stated = re.search(r"box AP ([\d.]+), mask AP ([\d.]+)", PUBLISHED[name].__doc__ or "")
    assert stated is not None
    for metric, number in zip(("box_ap", "mask_ap"), stated.groups(), strict=True):
        assert values.get(metric, float(number)) == float(number)


def test_the_table_knows_them() -> None:
    assert {
        "vitdet_base",
        "vitdet_large",
        "vitdet_base_norelpos_supervised",
        "li2021_base",
        "li2021_large_random",
    } <= set(published())


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
