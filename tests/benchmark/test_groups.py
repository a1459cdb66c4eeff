"""Groups of test images: drawn whole for every metric, by a pattern or a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.groups import Grouping, read_groups
from benchmark.compare.records import open_store
from benchmark.compare.resample import multiplicities
from benchmark.report.about import about
from benchmark.report.tables import difference_grid
from benchmark.report.verdict import task_verdict
from benchmark.study.plan import Groups, Plan, Planned, write_plan
from benchmark.study.prepare import prepare
from engine.records.results_file import read_results
from mae_transfer.tasks import TASKS
from tools.run_benchmark import TOOLS

HIT = {"objects": [[0, 1]], "detections": [[0, 0.9, 1023, 0]]}
MISS = {"objects": [[0, 1]], "detections": []}


def grouping(tmp_path: Path, **given: Any) -> Grouping:
    return Grouping(Groups(**given), tmp_path, tmp_path / "study.json")


def test_groups_by_pattern_and_by_file(tmp_path: Path) -> None:
    names = ["a/0001TP_1.png", "a/0006R0_2.png", "a/0001TP_3.png"]
    assert grouping(tmp_path, pattern="([^/]*)_").number(names) == [0, 1, 0]
    (tmp_path / "groups.csv").write_text('a/0001TP_1.png,x\na/0006R0_2.png,"y,z"\n\na/0001TP_3.png,x\nother.png,w\n')
    assert grouping(tmp_path, file="groups.csv").number(names) == [0, 1, 0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "by a pattern or by a file"),
        ({"pattern": "(a)", "file": "b"}, "by a pattern or by a file"),
        ({"pattern": "abc"}, "has 0 groups; put the one part"),
        ({"pattern": "(a)(b)"}, "has 2 groups"),
        ({"pattern": "("}, "is no regular expression"),
        ({"pattern": "(a+)+b"}, "may take for ever"),
        ({"pattern": "(.*).*.*.*x"}, "may take for ever"),
        ({"pattern": "(" + "a" * 300 + ")"}, "a pattern of 302 characters; give it 200 at most"),
    ],
)
def test_declarations_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Groups(**given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.png,x\n", "groups.csv: no group for 1 of 2 images, as 'b.png'"),
        ("a.png\n", "groups.csv: line 1 is no name,group"),
        ("a.png,x\na.png,y\n", "groups.csv: line 2: 'a.png' is in a second group"),
        ('a.png,"x\n', "groups.csv: "),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        grouping(tmp_path, file="groups.csv").number(["a.png", "b.png"])


def test_a_file_outside_of_the_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "groups.csv").write_text("a.png,x\n")
    with pytest.raises(ValueError, match="must lie in its folder"):
        Grouping(Groups(file="../groups.csv"), tmp_path / "in", tmp_path / "in/study.json").number(["a.png"])
    assert read_groups(tmp_path / "groups.csv") == {"a.png": "x"}


def test_a_file_may_lie_beside_the_study_or_in_the_data(tmp_path: Path) -> None:
    for folder in ("studies", "data/cars", "data/w"):
        (tmp_path / folder).mkdir(parents=True)
    study = "name: x\nseeds: [0]\narms: {a: random, b: {init: w, init_source: mae}}\ncompare: {claim: b, against: a}\n"
    study += "tasks: {cars: {tool: train_seg, recipe: tiny, data: cars, groups: {file: g.csv}}}\n"
    (tmp_path / "studies/x.yaml").write_text(study)

    def copied() -> str:
        file = str(tmp_path / "studies/x.yaml")
        made = prepare(file, TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "data")
        made.refuse()
        made.write_plan()
        return (tmp_path / "out/groups/cars.csv").read_text()

    with pytest.raises(ValueError, match=r"data/g\.csv is not there"):
        copied()
    (tmp_path / "data/g.csv").write_text("a.png,data\n")
    assert copied() == "a.png,data\n"
    (tmp_path / "studies/g.csv").write_text("a.png,beside\n")
    assert copied() == "a.png,beside\n"
    for name in ("data/g.csv", "studies/g.csv"):
        (tmp_path / name).unlink()
    assert copied() == "a.png,beside\n"  # the study's own copy


def add(study: Any, record: Any, task: str, lines: dict[str, list[dict[str, Any]]], groups: Groups | None) -> None:
    """Two seeds of two arms on images v0_0, v0_1, v1_0, ...; the metrics are those of the lines."""
    scores = TASKS[task].scores[0]
    runs = []
    for arm, mine in lines.items():
        assert scores.resampler is not None
        ones_RN = np.ones((1, len(mine)), dtype=np.int64)
        metrics = {name: float(value[0]) for name, value in scores.resampler(mine)(ones_RN).items()}
        for seed in (0, 1):
            name = f"t-{arm}-seed{seed}"
            folder = study.add(name, replace(record(task, arm, seed, metrics), arm=arm))
            rows = [{"image_id": f"v{n // 2}_{n % 2}.png", **line} for n, line in enumerate(mine)]
            (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            assert len(read_results(folder / "results.jsonl")) == len(mine)
            runs.append(Planned(folder=name, phase="transfer", kind="t", task="t", arm=arm))
    write_plan(
        study.root,
        Plan(
            name="x",
            claim="mae",
            against="labels",
            arms=("mae", "labels"),
            runs=tuple(runs),
            groups={} if groups is None else {"t": groups},
        ),
    )


def spread_of_images(comparison: Comparison) -> float:
    row = next(row for row in comparison.rows if row.primary)
    assert row.headline is not None and row.headline.components is not None
    return row.headline.components.of_images


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_whole_groups_are_drawn_for_every_metric(study: Any, record: Any, task: str) -> None:
    kinds = {
        "classification": ({"label": 1, "top5": [1, 0]}, {"label": 1, "top5": [0, 1]}),
        "detection": ({"box_matches": HIT}, {"box_matches": MISS}),
        "segmentation": ({"confusion": [[0, 0, 5], [1, 1, 5]]}, {"confusion": [[0, 0, 5], [1, 0, 5]]}),
    }
    hit, miss = kinds[task]
    # both images of a video are alike: 12 images, 6 videos
    videos = [hit, miss, hit, hit, miss, hit]
    lines = {"mae": [line for line in videos for _ in range(2)], "labels": [miss if n % 3 else hit for n in range(12)]}
    lines["labels"] = [line for line in lines["labels"][::2] for _ in range(2)]
    add(study, record, task, lines, Groups(pattern="(v[0-9]+)_"))
    grouped = compare(open_store(study.root, TASKS))
    row = next(row for row in grouped.rows if row.primary)
    assert row.headline is not None and (row.headline.images, row.headline.grouped) == (6, 12)
    assert "12 images in 6 groups" in task_verdict(row) and "t: 12 test images in 6 groups" in " ".join(about(grouped))
    assert difference_grid(grouped).rows[0][6] == "12 in 6 groups"
    # by hand, of the same draws: every image as often as its video
    resampled = TASKS[task].scores[0].resampler
    assert resampled is not None
    times_RN = np.repeat(np.concatenate(list(multiplicities(6, 1000))), 2, axis=1)
    name = row.metric.name
    drawn_R = resampled(lines["mae"])(times_RN)[name] - resampled(lines["labels"])(times_RN)[name]
    assert spread_of_images(grouped) == pytest.approx(6 / 5 * np.var(drawn_R, ddof=1))
    add(study, record, task, lines, None)
    alone = compare(open_store(study.root, TASKS))
    assert spread_of_images(grouped) > 1.3 * spread_of_images(alone)  # twice, but for the noise of six videos


def test_one_group_is_no_sample_of_groups(study: Any, record: Any) -> None:
    lines = {arm: [{"label": 1, "top5": [n % k, 1]} for n in range(12)] for arm, k in (("mae", 2), ("labels", 3))}
    add(study, record, "classification", lines, Groups(pattern="(v)"))
    comparison = compare(open_store(study.root, TASKS))
    assert any("the 12 images are of 1 group; a resample needs" in text for text in comparison.not_resampled)
    add(study, record, "classification", lines, Groups(pattern="(w)"))
    comparison = compare(open_store(study.root, TASKS))
    (said,) = comparison.not_resampled
    assert said == f"{study.root}/study.json: groups: '(w)' finds no group in the image 'v0_0.png' (4 runs)"
