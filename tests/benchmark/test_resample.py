"""Runs resampled from their results files: the metric at one draw each, paired draws, and every way to fall back."""

import json
from typing import Any

import numpy as np
import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.lines import Line
from benchmark.compare.records import open_store
from benchmark.compare.resample import multiplicities, resample
from mae_transfer.tasks import TASKS


def add(study: Any, record: Any, arm: str, seed: int, lines: list[dict[str, Any]], task: str, **metrics: float) -> None:
    folder = study.add(f"{task}-{arm}-{seed}", record(task, arm, seed, metrics))
    text = "".join(json.dumps({"image_id": str(number), **line}) + "\n" for number, line in enumerate(lines))
    (folder / "results.jsonl").write_text(text, encoding="utf-8")


def answers(hits: list[int]) -> list[dict[str, Any]]:
    return [{"label": 1, "top5": [hit, 1]} for hit in hits]


def test_draws_are_the_same_for_every_run_and_whole() -> None:
    first, second = (np.concatenate(list(multiplicities(7, 50))) for _ in range(2))
    assert (first == second).all() and (first.sum(axis=1) == 7).all() and first.shape == (50, 7)


def test_top1_is_resampled_on_the_same_images(study: Any, record: Any) -> None:
    add(study, record, "mae", 0, answers([1, 0, 1, 1]), "classification", top1=75.0)
    add(study, record, "random", 0, answers([1, 0, 0, 1]), "classification", top1=50.0)
    drawn = resample(
        Line("classification", TASKS["classification"].scores[0]), open_store(study.root, TASKS).stored, 200
    )
    mae_R, random_R = (values["top1"] for values in drawn.values_R.values())
    times_RN = np.concatenate(list(multiplicities(4, 200)))
    assert drawn.images == 4 and not drawn.problems
    assert mae_R - random_R == pytest.approx(100 * times_RN[:, 2] / 4)  # they differ on the third image alone


def test_miou_and_ap_are_resampled(study: Any, record: Any) -> None:
    lines = [{"confusion": [[0, 0, 5], [1, 1, 5]]}, {"confusion": [[0, 0, 2], [1, 0, 2]]}]
    # class 0: 7 of 9, class 1: 5 of 7
    add(study, record, "mae", 0, lines, "segmentation", miou=100 * (7 / 9 + 5 / 7) / 2)
    drawn = resample(Line("segmentation", TASKS["segmentation"].scores[0]), open_store(study.root, TASKS).stored, 40)
    assert not drawn.problems
    values_R = next(iter(drawn.values_R.values()))["miou"]
    # both times the first image: 100; both times the second: class 0 has 2 of 4, class 1 0 of 2
    times_RN = np.concatenate(list(multiplicities(2, 40)))
    expected = np.select([times_RN[:, 0] == 2, times_RN[:, 0] == 0], [100.0, 25.0], 100 * (7 / 9 + 5 / 7) / 2)
    assert values_R == pytest.approx(expected)


def test_ap_is_resampled_from_matches(study: Any, record: Any) -> None:
    hit = {"box_matches": {"objects": [[0, 1]], "detections": [[0, 0.9, 1023, 0]]}}
    miss = {"box_matches": {"objects": [[0, 1]], "detections": []}}
    # recall ends at 1/2 with precision 1: 51 of 101 recall values
    add(study, record, "mae", 0, [hit, miss], "detection", box_ap=100 * 51 / 101)
    drawn = resample(Line("detection", TASKS["detection"].scores[0]), open_store(study.root, TASKS).stored, 40)
    assert not drawn.problems
    times_RN = np.concatenate(list(multiplicities(2, 40)))
    expected = np.array([0.0, 100 * 51 / 101, 100.0])[times_RN[:, 0]]
    assert next(iter(drawn.values_R.values()))["box_ap"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lines", "top1", "reason"),
    [
        (answers([1, 1, 1, 1]), 75.0, "top1 of the results file is 100.0000, of the record 75.0000"),
        (answers([1, 0, 1]), 66.6666667, "holds other images than"),
        (
            [{"label": 1}] * 4,
            75.0,
            "results.jsonl: line 1: Predictions needs top5, which is not there; line 2: Predictions needs",
        ),
        (
            [{"label": 1, "top5": ["1"]}, {"label": True, "top5": []}] * 2,
            75.0,
            "line 1.top5[0]: '1' is no whole number; line 2.label: True is no",
        ),
        ([], 75.0, "0 images"),
    ],
)
def test_what_cannot_be_resampled_is_said(study: Any, record: Any, lines: Any, top1: float, reason: str) -> None:
    for arm in ("random", "supervised"):
        for seed in (0, 1):
            add(study, record, arm, seed, answers([1, 0, 1, 1]), "classification", top1=75.0)
    for seed in (0, 1):
        add(study, record, "mae", seed, lines, "classification", top1=top1 + seed * 0.00001)
    comparison = compare(open_store(study.root, TASKS), resamples=20)
    row = next(row for row in comparison.rows if row.metric.name == "top1")
    assert len(row.contrasts) == 2 and all(item.images is None for item in row.contrasts)
    assert any(reason in text for text in comparison.not_resampled), comparison.not_resampled


WHOLE = {"objects": [[0, 1]], "detections": [[0, 0.9, 1023, 0]]}


@pytest.mark.parametrize(
    ("task", "line", "reason"),
    [
        ("detection", {"box_matches": {**WHOLE, "objects": [[0, 1.5]]}}, "line 2.box_matches.objects[0][1]: 1.5 is no"),
        ("detection", {"box_matches": {**WHOLE, "objects": [[0, True]]}}, "objects[0][1]: True is no whole number"),
        ("detection", {"box_matches": {**WHOLE, "objects": [[0]]}}, "objects[0]: [0] is no list of 2"),
        ("detection", {"box_matches": {"objects": []}}, "line 2.box_matches: Matches needs detections"),
        ("detection", {"box_matches": [1]}, "line 2.box_matches: [1] is no object"),
        ("detection", {"box_matches": {**WHOLE, "detections": [[0, "x", 3, 0]]}}, "detections[0][1]: 'x' is no finite"),
        ("detection", {"box_matches": {**WHOLE, "detections": [[0, 0.5, 1024, 0]]}}, "[0, 0.5, 1024, 0] is no class"),
        ("detection", {"box_matches": {**WHOLE, "detections": [[-1, 0.5, 1, 0]]}}, "[-1, 0.5, 1, 0] is no class with"),
        ("segmentation", {"confusion": [[0, 10**12, 5]]}, "[0, 1000000000000, 5] is no pair of classes"),
        ("segmentation", {"confusion": [[0, 0.5, 5]]}, "line 2.confusion[0][1]: 0.5 is no whole number"),
    ],
)
def test_lines_are_typed(study: Any, record: Any, task: Any, line: dict[str, Any], reason: str) -> None:
    """Before they are computed with: numpy would round a fraction, and a class of 10^12 would take all memory."""
    good = {"detection": {"box_matches": WHOLE}, "segmentation": {"confusion": [[0, 0, 5]]}}[task]
    metric = {"detection": "box_ap", "segmentation": "miou"}[task]
    add(study, record, "mae", 0, [good, good], task, **{metric: 100.0})
    add(study, record, "random", 0, [good, line], task, **{metric: 100.0})
    drawn = resample(Line(task, TASKS[task].scores[0]), open_store(study.root, TASKS).stored, 20)
    assert drawn.images == 2 and [*drawn.values_R] == [study.root / f"{task}-mae-0"]
    assert len(drawn.problems) == 1 and str(study.root / f"{task}-random-0/results.jsonl") in drawn.problems[0]
    assert reason in drawn.problems[0], drawn.problems


def test_without_matches_detection_falls_back_on_seeds(study: Any, record: Any) -> None:
    for arm, value in (("mae", 9.0), ("supervised", 8.0)):
        for seed in (0, 1, 2):
            add(study, record, arm, seed, [{"detections": []}] * 3, "detection", box_ap=value + seed * (arm == "mae"))
    comparison = compare(open_store(study.root, TASKS))
    row = next(row for row in comparison.rows if row.metric.name == "box_ap")
    assert row.headline is not None and row.headline.images is None and row.headline.interval is not None
    assert comparison.not_resampled == ("detection: the results files hold no matches (6 runs)",)
