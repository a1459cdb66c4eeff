"""From records to rows, costs, refusals and verdicts."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import Comparison, Row, compare
from benchmark.compare.records import frame, open_store
from benchmark.report.about import about
from benchmark.report.tables import difference_grid, record_lines, result_grid
from benchmark.report.verdict import overall_verdict, own_task_verdict, task_verdict, verdicts
from benchmark.study.plan import Plan
from engine.records.record import RunRecord
from files.digest import file_sha256
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1
from tests.benchmark.conftest import make_pretraining


def comparison_of(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS))


def row_of(comparison: Comparison, task: str, metric: str) -> Row:
    return next(row for row in comparison.rows if (row.task, row.metric.name) == (task, metric))


def test_rows_of_a_whole_study(whole_study: Any) -> None:
    comparison = comparison_of(whole_study)
    assert [(row.task, row.metric.name) for row in comparison.rows] == [
        ("classification", "top1"),
        *(("detection", metric) for metric in ("box_ap", "box_ap50", "mask_ap", "mask_ap50")),
        *(("segmentation", metric) for metric in ("miou", "macc", "aacc")),
    ]
    row = row_of(comparison, "classification", "top1")
    random = row.summary("random")
    assert random is not None and (random.n, random.mean) == (2, 42.0)
    assert random.sd == pytest.approx(8**0.5)
    assert [item.reference for item in row.contrasts] == ["random", "supervised"]
    assert row.headline is not None and row.headline.per_seed == pytest.approx({0: 3.0, 1: 3.1})
    assert comparison.seeds == (0, 1)
    missing = row_of(comparison, "segmentation", "aacc")
    assert missing.summary("mae") is None and missing.headline is None and not missing.refused


def test_verdicts_fall_each_way(whole_study: Any) -> None:
    comparison = comparison_of(whole_study)
    by_task = {task: row_of(comparison, task, metric) for task, metric in (
        ("classification", "top1"), ("detection", "box_ap"), ("segmentation", "miou"))}  # fmt: skip
    found = [row.headline.verdict for row in by_task.values() if row.headline]
    assert found == ["supported", "inconclusive", "contradicted"]
    # differences 3.0 and 3.1: mean 3.05, sd 0.1 / sqrt 2, half width 12.706 * 0.05 = 0.635
    # p of t = 61 with one degree of freedom: 0.0104; the smallest of three: 0.0313; segmentation's t is 199, p 0.0032
    assert task_verdict(by_task["classification"]) == (
        "classification (top1): MAE transfers better than supervised: supported (WARNING: two seeds: too few to rely "
        "on); MAE minus supervised +3.05 (+3.00, +3.10 by seed; two seeds), 95 % interval +2.41 to +3.69 over seeds, "
        "the images as they are, p 0.01, 0.021 after Holm's correction."
    )
    text = task_verdict(by_task["detection"])
    assert "supervised: inconclusive; MAE minus supervised +0.00 (-1.00, +1.00 by seed; two seeds)" in text
    assert "-12.71 to +12.71" in text and text.endswith("out of reach: the difference is too near 0.")
    text = task_verdict(by_task["segmentation"])
    assert "MAE transfers better than supervised: contradicted, supervised transfers better (WARNING" in text
    assert own_task_verdict(comparison) == (
        "Supervised arm on its own task: 91.0 % top1 on held-out images (the study sets no pass mark)."
    )
    assert overall_verdict(comparison) == (
        "Overall: MAE transfers better than supervised: supported on classification; contradicted on segmentation; "
        "inconclusive on detection (two seeds per task). WARNING: too few seeds or steps on classification and "
        "segmentation to rely on."
    )


def test_supervised_arm_below_the_mark_is_a_straw_man(whole_study: Any) -> None:
    def judged(top1: float) -> Comparison:
        whole_study.pretrain("supervised", {"top1": top1})
        store = open_store(whole_study.root, TASKS)
        return compare(replace(store, plans=(Plan(name="marked", against="supervised", pass_mark=85.0),)))

    passed = judged(85.0)
    assert "85.0 % top1 on held-out images (pass mark 85 % top1: passed)" in own_task_verdict(passed)
    assert "straw man" not in overall_verdict(passed)
    # another arm from labels, of a smaller budget, is not that of the headline
    whole_study.add("pretrain-short", replace(make_pretraining("supervised", {"top1": 60.0}), arm="short"))
    assert "85.0 % top1 on held-out images (pass mark 85 % top1: passed)" in own_task_verdict(judged(85.0))
    comparison = judged(84.9)
    assert "84.9 % top1 on held-out images (pass mark 85 % top1: MISSED)" in own_task_verdict(comparison)
    assert overall_verdict(comparison).endswith(
        "The comparison is a straw man: the supervised arm reached 84.9 % top1 on its own task, below 85 %."
    )


def test_versions_of_the_code_and_devices_are_counted(whole_study: Any) -> None:
    said = "\n".join(record_lines(comparison_of(whole_study)))
    assert "versions of the code" not in said and "kinds of device" not in said
    whole_study.transfer("classification", "mae", [63.0, 64.1], git_commit="def", device="Some GPU")
    said = "\n".join(record_lines(comparison_of(whole_study)))
    assert "The compared runs are of 2 versions of the code: def (2), abc (16)." in said
    assert "The compared runs are of 2 kinds of device: Some GPU (2), cpu (16)." in said


def test_arms_of_another_size_are_called_no_matched_comparison(whole_study: Any) -> None:
    assert not any("NOT MATCHED" in line for line in about(comparison_of(whole_study)))
    huge = {"depth": 32, "embed_dim": 1280}
    whole_study.transfer("detection", "ijepa_huge", [63.0, 64.1], architecture=huge)
    (said,) = (line for line in about(comparison_of(whole_study)) if "NOT MATCHED" in line)
    assert said == (
        "NOT MATCHED, MAE and ijepa_huge: the ViT of the latter has 32 blocks of width 1,280, and that of MAE 6 blocks "
        "of width 192. Their differences and verdicts are of the size too, and none of them speaks of the pre-training "
        "alone."
    )


def test_a_link_to_the_images_is_the_same_folder(study: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    study.transfer("classification", "supervised", [60.0, 61.0], data=str(tmp_path / "images"))
    study.transfer("classification", "mae", [70.0, 72.0], data=str(tmp_path / "link"))
    assert row_of(comparison_of(study), "classification", "top1").refused == ()


def test_one_seed_is_inconclusive(study: Any) -> None:
    study.transfer("classification", "supervised", [60.0])
    study.transfer("classification", "mae", [70.0])
    row = row_of(comparison_of(study), "classification", "top1")
    assert row.headline is not None and row.headline.verdict == "inconclusive"
    assert task_verdict(row).endswith("+10.00 (+10.00 by seed; one seed): no interval from one seed.")


def test_missing_cells(study: Any) -> None:
    study.transfer("classification", "supervised", [60.0, 61.0])
    comparison = comparison_of(study)
    row = row_of(comparison, "classification", "top1")
    assert "mae" not in row.values and row.headline is None
    assert task_verdict(row) == "classification (top1): no verdict, no completed run of MAE."
    assert [row.task for row in comparison.rows] == ["classification"]  # the others were never trained
    assert comparison.unknown_origin == ("supervised",)
    assert comparison.own_task.top1 is None
    assert all(cost.pretrainings == 0 and cost.parameters is None for cost in comparison.costs)


def test_costs(whole_study: Any) -> None:
    random, supervised, mae = comparison_of(whole_study).costs
    assert (random.arm, random.pretrainings, random.seconds) == ("random", 0, None)
    assert (mae.arm, mae.pretrainings, mae.parameters, mae.samples_seen) == ("mae", 1, 2e6, 6400)
    assert mae.training_flops == 3e9
    assert (supervised.seconds, supervised.images_per_second) == (60.0, 400.0)
    summary = random.transfer_seconds["detection"]
    assert summary is not None and (summary.n, summary.mean) == (2, 60.0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": "other"}, "data: scenes -> other"),
        ({"total_steps": 20}, "total_steps: 100 -> 20"),
        ({"samples_seen": 1280}, "samples_seen: 640 -> 1280"),
        ({"train_split": "all"}, "train_split: train -> all"),
        ({"architecture": {"depth": 12, "embed_dim": 192}}, "architecture.depth: 6 -> 12"),
        ({"config": {"mask_ratio": 0.5, "run": {"seed": 1, "batch_size": 64}}}, "config.mask_ratio: 0.75 -> 0.5"),
        ({"config": {"mask_ratio": 0.75, "run": {"batch_size": 32}}}, "config.run.batch_size: 64 -> 32"),
        ({"precision": "bf16-mixed"}, "precision: 32-true -> bf16-mixed"),
        ({"libraries": {"torch": "3"}}, "libraries.torch: 2 -> 3"),
    ],
)
def test_unequal_transfer_is_refused_by_field(
    whole_study: Any, record: Callable[..., RunRecord], changes: dict[str, Any], field: str
) -> None:
    whole_study.add(
        "classification-supervised-seed1", record("classification", "supervised", 1, {"top1": 61.0}, **changes)
    )
    comparison = comparison_of(whole_study)
    row = row_of(comparison, "classification", "top1")
    assert row.headline is None
    assert len(row.refused) == 1
    assert row.refused[0] == f"{field} (from classification-mae-seed0 to classification-supervised-seed1)"
    assert f"no verdict, the runs are not comparable: {field}" in task_verdict(row)
    assert row_of(comparison, "detection", "box_ap").headline is not None
    assert "no comparison on classification" in overall_verdict(comparison)


def test_seed_and_workers_may_differ(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    config = {"mask_ratio": 0.75, "run": {"seed": 1, "batch_size": 64, "workers": 2}}
    changed = record("classification", "supervised", 1, {"top1": 61.0}, config=config)
    whole_study.add("classification-supervised-seed1", changed)
    assert not row_of(comparison_of(whole_study), "classification", "top1").refused


def test_weights_with_and_without_a_class_token_are_compared(
    whole_study: Any, record: Callable[..., RunRecord]
) -> None:
    config = {"mask_ratio": 0.75, "run": {"seed": 1, "batch_size": 64}}
    for name, has in (("mae", True), ("supervised", False)):
        changed = record("classification", name, 1, {"top1": 61.0}, config={**config, "class_token": has})
        whole_study.add(f"classification-{name}-seed1", changed)
    assert not row_of(comparison_of(whole_study), "classification", "top1").refused


def test_same_seed_twice_is_refused(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    whole_study.add("again", record("detection", "mae", 1, {"box_ap": 99.0}))
    refused = row_of(comparison_of(whole_study), "detection", "box_ap").refused
    assert len(refused) == 1 and refused[0].startswith("seed: 1 of arm mae is recorded twice (")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"samples_seen": 12800}, "samples_seen: "),
        ({"train_images": 99}, "train_images: "),
        ({"architecture": {"depth": 6, "embed_dim": 384}}, "architecture.embed_dim: "),
    ],
)
def test_unequal_pretraining_refuses_every_task(whole_study: Any, changes: dict[str, Any], field: str) -> None:
    whole_study.pretrain("mae", {"val_loss": 0.4}, **changes)
    comparison = comparison_of(whole_study)
    assert all(row.headline is None and row.refused[0].startswith(field) for row in comparison.rows)


def test_weights_of_another_pretraining_are_refused(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    checkpoint = whole_study.root / "pretrain-mae" / "backbone.safetensors"
    checkpoint.write_bytes(b"weights")
    refused = row_of(comparison_of(whole_study), "classification", "top1").refused
    assert refused == ("weights_sha256: arm mae did not start from the checkpoint of its recorded pre-training",)
    whole_study.transfer("classification", "mae", [1.0], weights_sha256=None)  # --init was forgotten
    assert row_of(comparison_of(whole_study), "classification", "top1").refused == (
        f"{refused[0]}, but from random weights",
    )
    for task in ("classification", "detection", "segmentation"):
        whole_study.transfer(task, "mae", [1.0, 2.0], weights_sha256=file_sha256(checkpoint))
    assert not any(row.refused for row in comparison_of(whole_study).rows)


def test_what_is_left_out_is_listed(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    failed = replace(record("detection", "mae", 1, {}), status="failed", error="ValueError: bad box", steps=4)
    whole_study.add("detection-mae-seed1", failed)
    running = replace(record("detection", "mae", 2, {}), status="running", steps=0)
    whole_study.add("detection-mae-seed2", running)
    nan = record("segmentation", "random", 0, {"miou": float("nan")})
    whole_study.add("segmentation-random-seed0", nan)
    broken = whole_study.root / "broken"
    broken.mkdir()
    (broken / "record.json").write_text('{"schema_version": 1')
    (broken / "deeper").mkdir()
    (broken / "deeper" / "record.json").write_text('{"schema_version": 99}')

    comparison = comparison_of(whole_study)
    assert row_of(comparison, "detection", "box_ap").values["mae"] == {0: 9.0}
    assert row_of(comparison, "segmentation", "miou").values["random"] == {1: 12.0}
    text = "\n".join(record_lines(comparison))
    assert "21 records read, 19 of them completed; 2 not readable." in text
    root = whole_study.root
    assert f"Left out, failed at step 4 of 100: {root}/detection-mae-seed1: ValueError: bad box" in text
    assert f"Left out, killed or still running at step 0 of 100: {root}/detection-mae-seed2" in text
    assert f"Left out, not readable: {broken}/record.json: not a readable record" in text
    assert "schema version 99" in text
    assert f"Not a number: {root}/segmentation-random-seed0: miou." in text


def test_missing_cells_are_counted(whole_study: Any) -> None:
    shutil.rmtree(whole_study.root / "detection-mae-seed1")
    comparison = comparison_of(whole_study)
    assert row_of(comparison, "detection", "box_ap").missing == (("mae", 1),)
    text = "\n".join(record_lines(comparison))
    assert "Missing cells, detection (box_ap): 1: MAE seed 1." in text
    assert "Left out of MAE minus supervised, detection: seeds of one arm alone (1)." in text


def test_secondary_metrics_have_intervals_and_no_verdict(study: Any, record: Callable[..., RunRecord]) -> None:
    for seed in (0, 1, 2):
        for arm, value in (("mae", 30.0 + seed), ("supervised", 20.0)):
            study.add(f"{arm}{seed}", record("detection", arm, seed, {"box_ap": value, "mask_ap": value}))
    comparison = comparison_of(study)
    first, second = (row_of(comparison, "detection", name).headline for name in ("box_ap", "mask_ap"))
    assert first is not None and second is not None and first.interval == second.interval
    assert (first.verdict, second.verdict, second.adjusted_p) == ("supported", None, None)


def test_other_arms_get_their_own_column(whole_study: Any) -> None:
    whole_study.transfer("classification", "moco_v3", [62.0])
    comparison = comparison_of(whole_study)
    assert comparison.arms == ("random", "supervised", "mae", "moco_v3")
    assert row_of(comparison, "classification", "top1").values["moco_v3"] == {0: 62.0}
    assert comparison.unknown_origin == ("moco_v3",)


def test_frame_is_tidy(study: Any, record: Callable[..., RunRecord]) -> None:
    study.add("a", record("segmentation", "mae", 3, {"miou": 20.0, "aacc": 60.0}))
    study.add("b", record("detection", "random", 0, {}, status="failed"))
    rows = frame(open_store(study.root, TASKS).stored).drop(columns="folder").to_dict("records")
    assert [(row["metric"], row["value"]) for row in rows[:2]] == [("aacc", 60.0), ("miou", 20.0)]
    assert rows[0]["weights"] == "mae" and rows[0]["seed"] == 3
    assert rows[2]["status"] == "failed" and rows[2]["value"] != rows[2]["value"]


def test_no_folder_and_no_record_are_refused(study: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; give one that holds runs"):
        open_store(study.root, TASKS)
    study.root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no record\.json below it"):
        open_store(study.root, TASKS)


def test_signs() -> None:
    assert [TOP1.signed(value) for value in (-0.004, 0.0, 0.006, -1.005, 12.0)] == [
        "+0.00",
        "+0.00",
        "+0.01",
        "-1.00",
        "+12.00",
    ]


def test_the_arms_that_are_there_are_judged(study: Any) -> None:
    """Without a supervised arm MAE is judged against every other; without MAE, what has weights against the rest."""
    study.transfer("classification", "random", [40.0, 41.0, 42.0])
    study.transfer("classification", "mae", [60.0, 61.0, 62.1])
    comparison = comparison_of(study)
    assert (comparison.arms, comparison.claim, comparison.others) == (("random", "mae"), "mae", ("random",))
    assert overall_verdict(comparison) == (
        "Overall: MAE transfers better than random init: supported on classification (three seeds per task)."
    )
    assert [row[2] for row in difference_grid(comparison).rows] == ["random init"]
    study.transfer("classification", "beit", [50.0, 51.0, 52.2])
    comparison = comparison_of(study)
    assert comparison.others == ("random", "beit")
    said = (
        "MAE transfers better than random init: supported on classification; MAE transfers better than BEiT: supported"
    )
    assert said in overall_verdict(comparison)
    assert "MAE transfers better than BEiT: supported" in task_verdict(row_of(comparison, "classification", "top1"))


def test_labels_against_random_weights(study: Any) -> None:
    study.transfer("classification", "random", [40.0, 41.0, 42.0])
    study.transfer("classification", "supervised", [60.0, 61.0, 62.1])
    comparison = comparison_of(study)
    assert (comparison.claim, comparison.others) == ("supervised", ("random",))
    assert "supervised transfers better than random init: supported" in overall_verdict(comparison)


def test_arms_at_the_floor_have_learned_nothing(study: Any) -> None:
    for arm, values in (("supervised", [0.0, 0.002, 0.001]), ("mae", [0.001, 0.0, 0.003])):
        study.transfer("detection", arm, values)
    comparison = comparison_of(study)
    row = row_of(comparison, "detection", "box_ap")
    assert row.headline is not None and row.headline.needed is None
    assert task_verdict(row) == (
        "detection (box_ap): MAE transfers better than supervised: no verdict, nothing was learned (box_ap 0.00 in "
        "both arms): train longer."
    )
    assert "nothing was learned on detection" in overall_verdict(comparison)
    assert "train longer" in difference_grid(comparison).rows[0][-1]


@pytest.mark.parametrize(
    ("seeds", "steps", "said"),
    [
        (2, 15, "two seeds of 15 steps each: too little to rely on"),
        (3, 15, "three seeds of 15 steps each: too short to rely on"),
        (2, 1000, "two seeds: too few to rely on"),
        (3, 1000, None),
    ],
)
def test_a_verdict_from_hardly_any_runs_has_a_warning(study: Any, seeds: int, steps: int, said: str | None) -> None:
    for arm, values in (("supervised", [50.0, 51.0, 52.0]), ("mae", [60.0, 61.1, 62.0])):
        values = values[:seeds]
        study.transfer("classification", arm, values, steps=steps, total_steps=steps)
    comparison = comparison_of(study)
    whole = [*about(comparison), *verdicts(comparison)]
    assert row_of(comparison, "classification", "top1").headline.verdict == "supported"  # type: ignore[union-attr]
    assert any("WARNING" in line for line in whole) == (said is not None)
    if said is not None:
        assert f"WARNING, classification: {said}." in whole and f"(WARNING: {said})" in " ".join(whole)
        assert said in difference_grid(comparison).rows[0][10]


def test_a_name_with_a_comma_stands_between_quotes(study: Any) -> None:
    study.transfer("classification", "labels, 300 epochs", [60.0, 61.0, 62.0])
    study.transfer("classification", "mae", [63.0, 64.1, 65.0])
    comparison = comparison_of(study)
    assert 'MAE transfers better than "labels, 300 epochs": supported on classification' in overall_verdict(comparison)
    assert result_grid(comparison).head[2:4] == ("MAE", '"labels, 300 epochs"')
