"""Published rows: complete, recipes apart, and a check that a measured run has to pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.export import to_csv, to_json, to_latex, to_markdown
from benchmark.lines import METRICS
from benchmark.published import check_published, published_rows
from benchmark.store import open_store
from benchmark.table import compare
from engine.record import RunRecord


def test_rows_are_complete_and_two_coco_recipes_are_apart() -> None:
    rows = {(row.recipe, row.arm, row.metric): row for row in published_rows()}
    assert rows["mae_base", "mae", "top1"].value == 83.6
    assert rows["li2021_base", "mae", "box_ap"].value == 50.3
    assert rows["vitdet_base", "mae", "box_ap"].value == 51.6
    assert rows["vitdet_base_norelpos_supervised", "supervised", "box_ap"].value == 47.6
    assert rows["vitdet_cascade_huge", "mae", "box_ap"].value == 58.7
    assert rows["vitdet_lvis_base", "mae", "mask_ap_rare"].value == 29.1
    assert rows["mae_upernet_base", "mae", "miou"].value == 48.1
    assert {row.arm for row in rows.values()} == {"mae", "supervised", "supervised_in21k", "beit", "moco_v3", "random"}
    for row in rows.values():
        assert row.metric in (*METRICS[row.task], "mask_ap_rare") and row.source and row.table and row.tolerance_reason
        assert 0 < row.tolerance < 2 < row.value < 100


def test_a_run_outside_of_the_tolerance_is_flagged(study: Any, record: Callable[..., RunRecord]) -> None:
    records = [record("classification", "mae", seed, {"top1": 83.2 + 0.2 * seed}, recipe="mae_base") for seed in (0, 1)]
    checks = {check.published.arm: check for check in check_published(records)}
    assert set(checks) == {"mae", "moco_v3", "beit"}
    assert checks["mae"].difference == pytest.approx(-0.3) and not checks["mae"].outside
    assert checks["beit"].measured is None and not checks["beit"].outside
    study.add("a", record("classification", "mae", 0, {"top1": 83.2}, recipe="mae_base"))
    comparison = compare(open_store(study.root))
    text = to_markdown(comparison)
    assert "## Published, not measured here" in text and "| outside |" in " ".join(text.split())
    assert (
        "Outside of what is published: mae_base, mae, top1: -0.40 from 83.60 (MAE, arXiv 2111.06377, table 3)" in text
    )
    assert "PUBLISHED values" in to_latex(comparison) and '"outside": true' in to_json(comparison)
    assert "published,classification,top1,mae,published,,,83.6," in to_csv(comparison)


def test_other_recipes_and_arms_are_left_alone(record: Callable[..., RunRecord]) -> None:
    assert check_published([record("classification", "mae", 0, {"top1": 10.0})]) == ()
    (check, *_) = check_published([record("classification", "dino", 0, {"top1": 10.0}, recipe="mae_base")])
    assert check.measured is None


def test_an_arm_with_settings_of_its_own(record: Callable[..., RunRecord]) -> None:
    """Its recipe is followed under another name, and its rows are shown beside those of its block."""
    block = "vitdet_base_norelpos"
    runs = [
        record("detection", "mae", 0, {"box_ap": 51.0}, recipe=block),
        replace(record("detection", "timm", 0, {"box_ap": 47.6}, recipe=f"{block}_supervised"), arm="supervised"),
        record("detection", "random", 0, {"box_ap": 40.0}, recipe=block),  # not the settings of the published row
    ]
    for records in (runs, runs[1:2]):
        checks = check_published(records)
        assert len(checks) == 8 and {check.published.block for check in checks} == {block}
        found = {(check.published.recipe, check.published.arm): check.difference for check in checks if check.measured}
        expected = {(block, "mae"): -0.2, (f"{block}_supervised", "supervised"): 0.0}
        assert found == pytest.approx({key: expected[key] for key in found}) and len(found) == len(records[:2])


def test_an_incomplete_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text("- {recipe: x, task: detection, rows: []}\n")
    with pytest.raises(ValueError, match=r"rows\.yaml: x: fields missing: backbone, data, source, tolerance"):
        published_rows(path)
