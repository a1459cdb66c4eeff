"""Published rows: complete, recipes apart, and a check that a measured run has to pass."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.published import NO_RECIPE, PATH, check_published, published_rows
from benchmark.compare.records import Stored, open_store
from benchmark.report.export import to_csv, to_json, to_latex, to_markdown
from benchmark.study.search import Choice, Tried
from classification.recipes import RECIPES as CLASSIFICATION
from detection.recipes.all import RECIPES as DETECTION
from engine.records.record import RunRecord
from mae_transfer.tasks import TASKS
from pretraining.recipes import RECIPES as PRETRAINING
from segmentation.recipes import RECIPES as SEGMENTATION

RECIPES = {
    "classification": CLASSIFICATION,
    "supervised": PRETRAINING,
    "detection": DETECTION,
    "segmentation": SEGMENTATION,
}
IMAGENET, COCO = 50_000, 5_000


def stored(*records: RunRecord, choice: Choice | None = None) -> list[Stored]:
    return [
        Stored(folder=Path("x"), record=record, arm="", line=None, choice=choice, checkpoint_sha256=None)
        for record in records
    ]


def test_rows_are_complete_and_two_coco_recipes_are_apart() -> None:
    rows = {(row.recipe, row.arm, row.metric): row for row in published_rows()}
    assert rows["mae_base", "mae", "top1"].value == 83.6
    assert rows["li2021_base", "mae", "box_ap"].value == 50.3
    assert rows["vitdet_base", "mae", "box_ap"].value == 51.6
    assert rows["vitdet_base_norelpos_supervised", "supervised", "box_ap"].value == 47.6
    assert rows["vitdet_cascade_huge", "mae", "box_ap"].value == 58.7
    assert rows["vitdet_lvis_base", "mae", "mask_ap_rare"].value == 29.1
    assert rows["mae_base_100ep", "mae", "miou"].value == 48.1
    assert rows["beit_base_100ep", "beit", "miou"].value == 47.1
    assert rows["supervised_base", "supervised", "top1"].value == 82.3
    assert rows["eomt_large_ade20k", "dinov2", "miou"].value == 58.4
    arms = {"mae", "supervised", "supervised_in21k", "beit", "moco_v3", "dinov2", "random"}
    assert {row.arm for row in rows.values()} == arms
    for row in rows.values():
        kind = "classification" if row.task == "supervised" else row.task
        known = {metric.name for scores in TASKS[kind].scores for metric in scores.metrics}
        assert row.metric in known and row.source and row.table and row.tolerance_reason
        assert row.recipe == NO_RECIPE or row.recipe in RECIPES[row.task], row.recipe
        assert row.block in RECIPES[row.task]
        assert 0 < row.tolerance < 2 < row.value < 100


def test_a_row_is_typed_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = PATH.read_text(encoding="utf-8")
    path.write_text(re.sub(r"value: [0-9.]+", "value: much", text, count=1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: \w+ of \w+\.value: 'much' is no finite number"):
        published_rows(path)


def test_a_run_outside_of_the_tolerance_is_flagged(study: Any, record: Callable[..., RunRecord]) -> None:
    records = [
        record("classification", "mae", seed, {"top1": 83.2 + 0.2 * seed}, recipe="mae_base", val_images=IMAGENET)
        for seed in (0, 1)
    ]
    checks = {check.published.arm: check for check in check_published(stored(*records))}
    assert set(checks) == {"mae", "moco_v3", "beit"}
    assert checks["mae"].difference == pytest.approx(-0.3) and not checks["mae"].outside
    assert checks["beit"].measured is None and not checks["beit"].outside
    whole = record("classification", "mae", 0, {"top1": 83.2}, recipe="mae_base", val_images=IMAGENET)
    study.add("a", whole)
    study.add(
        "b", replace(whole, departures=("published in float16", "label_fraction: None -> 0.01"), metrics={"top1": 9.0})
    )
    comparison = compare(open_store(study.root, TASKS))
    text = to_markdown(comparison)
    assert "## Published, not measured here" in text and "| outside |" in " ".join(text.split())
    assert (
        "Outside of what is published: mae_base, mae, top1: -0.40 from 83.60 (MAE, arXiv 2111.06377, table 3)" in text
    )
    assert "Not held against what is published for mae_base, mae, top1: label_fraction: None -> 0.01 (1 run)." in text
    assert "PUBLISHED values" in to_latex(comparison) and '"outside": true' in to_json(comparison)
    assert "published,classification,top1,mae,published,,,83.6," in to_csv(comparison)


def test_other_recipes_and_arms_are_left_alone(record: Callable[..., RunRecord]) -> None:
    assert check_published(stored(record("classification", "mae", 0, {"top1": 10.0}))) == ()
    (check, *_) = check_published(stored(record("classification", "dino", 0, {"top1": 10.0}, recipe="mae_base")))
    assert check.measured is None and check.left_out == ()
    own_recipe = record("classification", "beit", 0, {"top1": 10.0}, recipe="mae_base", val_images=IMAGENET)
    assert all(check.measured is None for check in check_published(stored(own_recipe)))


def test_runs_of_other_settings_are_counted_and_not_held_against_it(record: Callable[..., RunRecord]) -> None:
    whole = record("classification", "mae", 0, {"top1": 83.5}, recipe="mae_base", val_images=IMAGENET)
    rate = replace(whole, departures=("run.optim.base_lr: 0.0005 -> 0.001",))
    choice = Choice(
        task="x", arm="mae", metric="top1", val_split="val", val_images=9, seed=100, base_lr=1e-3,
        tried=(Tried(base_lr=1e-3, value=1.0),),
    )  # fmt: skip
    other = [
        rate,
        replace(whole, departures=("label_fraction: None -> 0.01",)),
        replace(whole, departures=("label_fraction: None -> 0.01",)),
        replace(whole, val_images=2000),
    ]
    (check, *_) = check_published([*stored(whole, *other), *stored(replace(rate, seed=1), choice=choice)])
    assert check.measured is not None and (check.measured.n, check.measured.mean) == (2, 83.5)
    assert check.left_out == (
        "run.optim.base_lr: 0.0005 -> 0.001 (1 run)",
        "label_fraction: None -> 0.01 (2 runs)",
        "2,000 validation images, not 50,000 (1 run)",
    )


def test_an_arm_with_settings_of_its_own(record: Callable[..., RunRecord]) -> None:
    """Its recipe is followed under another name, and its rows are shown beside those of its block."""
    block = "vitdet_base_norelpos"
    runs = [
        record("detection", "mae", 0, {"box_ap": 51.0}, recipe=block, val_images=COCO),
        replace(
            record("detection", "timm", 0, {"box_ap": 47.6}, recipe=f"{block}_supervised", val_images=COCO),
            arm="supervised",
        ),
        # not the settings of the published row
        record("detection", "random", 0, {"box_ap": 40.0}, recipe=block, val_images=COCO),
    ]
    for records in (runs, runs[1:2]):
        checks = check_published(stored(*records))
        assert len(checks) == 8 and {check.published.block for check in checks} == {block}
        found = {(check.published.recipe, check.published.arm): check.difference for check in checks if check.measured}
        expected = {(block, "mae"): -0.2, (f"{block}_supervised", "supervised"): 0.0}
        assert found == pytest.approx({key: expected[key] for key in found}) and len(found) == len(records[:2])


def test_an_incomplete_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text("- {recipe: x, task: detection, rows: []}\n")
    missing = "backbone, data, source, tolerance, tolerance_reason, val_images"
    with pytest.raises(ValueError, match=rf"rows\.yaml: x: fields missing: {missing}"):
        published_rows(path)
