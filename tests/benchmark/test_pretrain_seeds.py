"""Pre-training seeds: tied and crossed with transfer seeds, their components by hand, and what a report says first."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.compare.cells import Cell, paired, whole_grid
from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.components import components, crossed_components
from benchmark.compare.contrast import ArmValues, Contrast, contrast, judge
from benchmark.compare.interval import Spread
from benchmark.compare.needed import needed
from benchmark.compare.ranks import rank_intervals
from benchmark.compare.records import open_store
from benchmark.report.about import about
from benchmark.report.contrast_text import needed_text, seeds_text, variance_text
from benchmark.report.export import to_json, to_markdown
from benchmark.report.html import to_html
from benchmark.report.tables import difference_grid
from benchmark.report.verdict import overall_verdict, task_verdict
from benchmark.study.plan import Plan, Planned, PretrainSeeds, read_plans, write_plan
from engine.records.record import RunRecord
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1

Record = Callable[..., RunRecord]


def test_cells_are_paired_and_random_weights_stand_beside_every_pretraining() -> None:
    mae = {(0, 1): 5.0, (0, 2): 6.0, (1, 1): 7.0}
    assert paired(mae, {(0, 1): 1.0, (1, 1): 2.0, (2, 1): 3.0}) == (
        {(0, 1): 4.0, (1, 1): 5.0},
        ((0, 2), (2, 1)),
    )
    differences, left = paired(mae, {1: 1.0, 3: 0.0})
    assert differences == {(0, 1): 4.0, (1, 1): 6.0} and left == (3, (0, 2))
    assert paired({0: 1.0, 1: 2.0}, {1: 0.5, 2: 0.0}) == ({1: 1.5}, (0, 2))


def test_the_largest_grid_without_a_gap() -> None:
    cells = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert whole_grid(cells) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert whole_grid([*cells, (2, 1)]) == sorted([*cells, (2, 1)])
    assert whole_grid([(0, 0), (0, 1), (1, 0)]) == [(0, 0), (1, 0)]  # as large as (0, 0), (0, 1), of more pre-trainings
    assert whole_grid([]) == []


def test_crossed_components_by_hand() -> None:
    # rows 1 and 5, columns 2 and 4, mean 3; the rest is 0, 0 / 0, 0: cells add up
    parts = crossed_components(np.array([[0.0, 2.0], [4.0, 6.0]]), None, None)
    assert parts.transfers is not None and parts.transfers.cell == pytest.approx(0.0)
    assert parts.of_seeds == pytest.approx(8 / 2)  # the variance of 1 and 5 is 8
    assert parts.of_transfers == pytest.approx(2 / 2)  # of 2 and 4 it is 2
    assert parts.spread.factors == ((pytest.approx(4.0), 2), (pytest.approx(1.0), 2))
    # one cell 4 higher: rows 1 and 7, columns 2 and 6, the rest +-1 with one degree of freedom: 4
    parts = crossed_components(np.array([[0.0, 2.0], [4.0, 10.0]]), None, None)
    assert parts.transfers is not None and parts.transfers.cell == pytest.approx(4.0)
    assert parts.of_transfers == pytest.approx((8 - 4 / 2) / 2)
    # columns alike: what the cells vary by is no effect of transfers, and the component is cut off
    parts = crossed_components(np.array([[0.0, 2.0], [6.0, 4.0]]), None, None)
    assert parts.transfers is not None and parts.transfers.seed < 0 and parts.of_transfers == 0.0


def test_crossed_components_are_found() -> None:
    rng = np.random.default_rng(1)
    shape = seeds, count, images = 60, 60, 150
    score_STN = (
        1.0 * rng.standard_normal(seeds)[:, None, None]
        + 2.0 * rng.standard_normal(count)[None, :, None]
        + 3.0 * rng.standard_normal((seeds, count))[:, :, None]
        + 5.0 * rng.standard_normal(images)
        + 2.0 * rng.standard_normal((1, count, images))
        + 1.0 * rng.standard_normal(shape)
    )
    times_RN = rng.multinomial(images, np.full(images, 1 / images), size=600)
    parts = crossed_components(score_STN.mean(axis=2), score_STN @ times_RN.T / images, images)
    assert parts.transfers is not None
    # 60 of each: the relative error of their variances is 18 %; two of them
    assert parts.seed + 0.0 == pytest.approx(1.0 + 9.0 / count, rel=0.4)
    assert parts.transfers.seed == pytest.approx(4.0, rel=0.4)
    assert parts.transfers.cell == pytest.approx(9.0, rel=0.1)
    assert parts.image == pytest.approx(25.0, rel=0.4)
    assert parts.transfers.interaction == pytest.approx(4.0, rel=0.15)
    assert parts.transfers.cell_interaction == pytest.approx(1.0, rel=0.15)


def test_one_transfer_of_each_pretraining_is_todays_interval() -> None:
    values = {(0, 7): 1.0, (1, 7): 2.0, (2, 7): 4.0}
    item = of(values, dict.fromkeys(values, 0.0))
    assert (item.n, item.transfers) == (3, 1) and seeds_text(item) == "3 pre-trainings with 1 transfer each"
    assert item.components == components(np.array([1.0, 2.0, 4.0]), None, None)


@pytest.mark.parametrize(
    ("cells", "way"),
    [
        ([(p, 0) for p in range(5)], "5 transfers of each pre-training or more"),
        ([(0, t) for t in range(5)], "two pre-trainings of each arm or more"),
    ],
)
def test_one_transfer_or_one_pretraining_of_a_crossed_study_has_no_verdict(cells: list[Cell], way: str) -> None:
    """What a transfer seed does to all pre-trainings alike is seen in none, however sure each looks."""
    values = {cell: 9.0 + 0.1 * number for number, cell in enumerate(cells)}
    (item,) = judge([of(values, dict.fromkeys(values, 0.0))])
    assert item.p is not None and item.p < 1e-5 and item.verdict == "inconclusive"
    assert not item.judged and needed_text(item) == way
    arms = ("mae", "labels", "random", "theirs")
    pairs = {(a, b): item for a in arms for b in arms if a < b}
    assert rank_intervals(pairs, arms) == dict.fromkeys(arms, (1, 4))


def of(first: dict[Any, float], second: dict[Any, float], design: PretrainSeeds = "crossed") -> Contrast:
    found = contrast(
        "cars",
        metric=TOP1,
        arms=("mae", "labels"),
        first=ArmValues(by_seed=first, resampled_R={}),
        second=ArmValues(by_seed=second, resampled_R={}),
        images=None,
        design=design,
    )
    assert found is not None
    return found


def test_a_crossed_interval_is_never_narrower_than_that_of_its_pretrainings() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        values_ST = rng.standard_normal((3, 2))
        cells = {(s, t): float(values_ST[s, t]) for s in range(3) for t in range(2)}
        crossed = of(cells, dict.fromkeys(cells, 0.0))
        rows = of({s: float(values_ST[s].mean()) for s in range(3)}, dict.fromkeys(range(3), 0.0), "tied")
        assert crossed.mean == pytest.approx(rows.mean) and crossed.permutation == rows.permutation
        assert crossed.interval is not None and rows.interval is not None
        assert crossed.interval[0] <= rows.interval[0] + 1e-9


def test_two_parts_of_few_seeds_together_ask_for_what_their_sum_does() -> None:
    halves = Spread(factors=((0.5, 5), (0.5, 5)), of_images=0.0, images=None)
    assert halves.reach(0.05) == pytest.approx(2.776445, abs=1e-6)  # Student's t with 4 degrees of freedom
    unequal = Spread(factors=((0.5, 3), (0.5, 9)), of_images=0.0, images=None)
    # at half of the variance, Student's t with 2 degrees: 1.96 + (4.302653 - 1.96) (0.5 - 0.05) / (0.9 - 0.05)
    assert unequal.reach(0.05) == pytest.approx(3.200211, abs=1e-5)


def test_what_settles_a_crossed_study_by_hand() -> None:
    # only transfers vary, by 1 at each seed; effect 1: as with seeds, 10 of them (tests/benchmark/test_contrast.py)
    parts = crossed_components(np.array([[-1.0, 1.0], [-1.0, 1.0]]) / 2**0.5, None, None)
    assert parts.transfers is not None and parts.transfers.seed == pytest.approx(1.0)
    wanted = needed(1.0, parts, 1)
    assert (wanted.seeds, wanted.transfers, wanted.images, wanted.both) == (None, 10, None, None)
    item = judge(
        [
            of(
                {(0, 0): 1.0, (0, 1): -0.9, (1, 0): 1.1, (1, 1): -1.0},
                dict.fromkeys([(0, 0), (0, 1), (1, 0), (1, 1)], 0.0),
            )
        ]
    )
    assert "transfers of each pre-training" in needed_text(item[0]) or "out of reach" in needed_text(item[0])


def seeded(study: Any, record: Record, design: PretrainSeeds, cells: list[tuple[int, int]], **more: Any) -> Path:
    """A study of two pre-trained arms and random weights; MAE is better by 5, the spread is of seeds."""
    runs = []
    for arm in ("mae", "labels"):
        for first in sorted({first for first, _ in cells}):
            name = f"pretrain-{arm}-seed{first}"
            outputs, digests = ("backbone.safetensors",), {"backbone.safetensors": f"sha-{arm}-{first}"}
            made = record(arm, "random", first, {}, outputs=outputs, files_sha256=digests, pictures=())
            study.add(name, replace(made, arm=arm))
            runs.append(Planned(folder=name, phase="pretrain", kind=name, arm=arm, pretrain_seed=first))
        for first, second in cells:
            name = f"cars-{arm}-pre{first}-seed{second}"
            value = 60.0 + 5.0 * (arm == "mae") + 0.3 * first * (arm == "mae") + 0.1 * second * (arm == "mae")
            study.add(
                name,
                replace(
                    record("classification", arm, second, {"top1": value}, weights_sha256=f"sha-{arm}-{first}"), arm=arm
                ),
            )
            runs.append(Planned(folder=name, phase="transfer", kind="cars", task="cars", arm=arm, pretrain_seed=first))
    for second in sorted({second for _, second in cells}):
        name = f"cars-random-seed{second}"
        study.add(name, record("classification", "random", second, {"top1": 30.0 + second}))
        runs.append(Planned(folder=name, phase="transfer", kind="cars", task="cars", arm="random"))
    plan = Plan(
        name="x",
        claim="mae",
        against="labels",
        arms=("mae", "labels", "random"),
        runs=tuple(runs),
        pretrain_seeds=design,
        **more,
    )
    return write_plan(study.root, plan)


def compared(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS))


def test_a_crossed_study_from_its_records(study: Any, record: Record) -> None:
    seeded(study, record, "crossed", [(s, t) for s in (0, 1, 2) for t in (0, 1)])
    comparison = compared(study)
    row = next(row for row in comparison.rows if row.primary)
    assert not row.refused and not row.missing and row.headline is not None
    # rows of the difference: 5.05, 5.35, 5.65; columns 5.3 and 5.4; the mean 5.35
    assert (row.headline.n, row.headline.transfers) == (3, 2) and row.headline.mean == pytest.approx(5.35)
    assert row.headline.components is not None
    assert row.headline.components.of_seeds == pytest.approx(0.09 / 3)
    assert row.headline.components.of_transfers == pytest.approx(0.005 / 2)
    assert variance_text(row.headline) == "pre-training 92 %, transfer 8 %"
    # a spread of two transfers tells too little of what all pre-trainings share
    assert row.headline.verdict == "inconclusive"
    assert about(comparison)[1].startswith("WARNING: 3 x 2 pre-trainings and transfers of each: where pre-trainings")
    against_random = next(item for item in row.contrasts if item.reference == "random")
    assert (against_random.n, against_random.transfers) == (3, 2)
    assert len(row.values["random"]) == 2 and comparison.seeds == (0, 1)
    assert "3 pre-trainings with 2 transfers each" in task_verdict(row)
    assert "over pre-training and transfer seeds" in task_verdict(row)
    first = about(comparison)[0]
    assert first.startswith(
        "About methods of pre-training as they are set here: MAE (pre-trained here with 3 seeds) and labels "
        "(pre-trained here with 3 seeds); every pre-training is transferred with the same seeds"
    )
    assert difference_grid(comparison).rows[0][5] == "3 x 2"
    text = to_markdown(comparison)
    assert text.index("About methods") < text.index("## Transfer") and '"0/1": 65.1' in to_json(comparison)
    page = to_html(comparison, images=False)
    assert page.index("About methods") < page.index("Overall:")


def test_an_interrupted_crossed_study_says_what_is_missing(study: Any, record: Record) -> None:
    seeded(study, record, "crossed", [(s, 0) for s in (0, 1, 2)])
    comparison = compared(study)
    row = next(row for row in comparison.rows if row.primary)
    assert row.headline is not None and row.headline.verdict == "inconclusive"
    assert about(comparison)[1].startswith("WARNING: 3 x 1 pre-trainings and transfers of each")
    assert difference_grid(comparison).rows[0][5] == "3 x 1"


def test_as_many_transfers_as_pretrainings_have_a_verdict(study: Any, record: Record) -> None:
    seeded(study, record, "crossed", [(s, t) for s in (0, 1, 2) for t in (0, 1, 2)])
    comparison = compared(study)
    row = next(row for row in comparison.rows if row.primary)
    assert row.headline is not None and (row.headline.n, row.headline.transfers) == (3, 3)
    assert row.headline.verdict == "supported" and not [line for line in about(comparison) if "WARNING" in line]


def test_a_gap_leaves_the_whole_grid_and_is_said(study: Any, record: Record) -> None:
    seeded(study, record, "crossed", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)])
    row = next(row for row in compared(study).rows if row.primary)
    assert row.headline is not None and (row.headline.n, row.headline.transfers) == (2, 2)
    assert row.headline.unpaired == ((2, 0),) and row.missing == ()
    assert "pre-training/transfer seeds of one arm alone, or gaps (2/0)" in to_markdown(compared(study))


def test_a_tied_study_speaks_of_both(study: Any, record: Record) -> None:
    seeded(study, record, "tied", [(0, 0), (1, 1), (2, 2)])
    comparison = compared(study)
    row = next(row for row in comparison.rows if row.primary)
    assert row.headline is not None and row.headline.per_seed == pytest.approx({0: 5.0, 1: 5.4, 2: 5.8})
    assert variance_text(row.headline) == "pre-training and transfer 100 %"
    assert "transfer seed s starts from pre-training s" in about(comparison)[0]
    assert "one file" not in about(comparison)[0]


def test_tied_seeds_of_one_pretraining_are_refused(study: Any, record: Record) -> None:
    seeded(study, record, "tied", [(0, 0), (0, 1)])
    (refused,) = {row.refused for row in compared(study).rows}
    assert refused == (
        "pretrain_seeds: tied, but transfer seeds 0, 1 of arm labels start from one, 0",
        "pretrain_seeds: tied, but transfer seeds 0, 1 of arm mae start from one, 0",
    )


def test_weights_of_another_seed_of_the_arm_are_refused(study: Any, record: Record) -> None:
    seeded(study, record, "tied", [(0, 0), (1, 1)])
    wrong = record("classification", "mae", 1, {"top1": 65.4}, weights_sha256="sha-mae-0")
    study.add("cars-mae-pre1-seed1", replace(wrong, arm="mae"))
    (refused,) = {row.refused for row in compared(study).rows}
    assert refused == (
        "weights_sha256: arm mae did not start from the checkpoint of its recorded pre-training with seed 1",
    )


def test_pretrainings_that_differ_in_more_than_their_seed_or_not_at_all(study: Any, record: Record) -> None:
    seeded(study, record, "tied", [(0, 0), (1, 1)])
    same = {"outputs": ("backbone.safetensors",), "files_sha256": {"backbone.safetensors": "sha-mae-0"}, "pictures": ()}
    study.add("pretrain-mae-seed1", replace(record("mae", "random", 1, {}, recipe="other", **same), arm="mae"))
    refused = next(row.refused for row in compared(study).rows)
    assert any(text.startswith("arm mae: recipe: tiny -> other") for text in refused), refused
    assert "weights_sha256: two pre-trainings of arm mae left the same weights; give each its seed" in refused


def test_one_file_of_each_arm_is_said_first(whole_study: Any, study: Any, record: Record) -> None:
    comparison = compared(whole_study)
    first = about(comparison)[0]
    assert first == (
        "About two weights files, one of each arm: MAE (pre-trained here once) and supervised (pre-trained here once). "
        "A verdict says which of them transfers better, not what another pre-training of the same method would give: "
        "intervals are over transfer seeds and test images."
    )
    assert to_markdown(comparison).split("\n")[2] == f"- {first}"
    assert overall_verdict(comparison).startswith("Overall: MAE transfers better")


def test_a_study_of_two_given_files_is_about_two_files(study: Any) -> None:
    for arm, value in (("mae", 63.0), ("supervised", 60.0)):
        study.transfer("classification", arm, [value, value + 0.1], weights_path=f"weights/{arm}.pth")
    assert about(compared(study))[0].startswith(
        "About two weights files, one of each arm: MAE (the file weights/mae.pth, whose pre-training is no part of "
        "this) and supervised (the file weights/supervised.pth, whose pre-training is no part of this)."
    )


def test_plans_of_before_open_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path = write_plan(tmp_path, Plan(name="old", runs=(Planned(folder="a", phase="pretrain", kind="a"),)))
    assert read_plans(tmp_path)[tmp_path].pretrain_seeds == "one"
    content = json.loads(path.read_text())
    for name in ("pretrain_seeds", "margins", "looks", "groups", "sha256"):
        del content[name]
    del content["runs"][0]["pretrain_seed"], content["runs"][0]["added"]
    path.write_text(json.dumps(content))
    assert read_plans(tmp_path)[tmp_path].runs == (Planned(folder="a", phase="pretrain", kind="a"),)
    for changes, said in (
        ({"looks": (3, 3)}, "looks: [3, 3] must rise, from two seeds on"),
        ({"looks": (1, 3)}, "must rise, from two seeds on"),
        ({"looks": tuple(range(2, 40))}, "looks: more than 20, or at more than 10,000 seeds"),
        ({"margins": {"top1": 0.0}}, "margins.top1: 0.0 is no number above 0"),
    ):
        with pytest.raises(ValueError, match=said.replace("[", r"\[").replace("]", r"\]")):
            replace(Plan(name="x"), **changes)


def test_pretrainings_of_earlier_seeds_stay_in_the_plan(tmp_path: Path) -> None:
    def plan(seed: int, *, repeated: bool = True) -> Plan:
        of = seed if repeated else None
        name = f"pretrain-mae-seed{seed}"
        return Plan(
            name="x",
            runs=(
                Planned(folder=name, phase="pretrain", kind=name, arm="mae", pretrain_seed=of),
                Planned(folder=f"cars{seed}", phase="transfer", kind="cars", task="cars", arm="mae", pretrain_seed=of),
            ),
        )

    write_plan(tmp_path, plan(0))
    write_plan(tmp_path, plan(1))
    found = [run.folder for run in read_plans(tmp_path)[tmp_path].runs]
    assert found == ["pretrain-mae-seed1", "cars1", "pretrain-mae-seed0", "cars0"]
    write_plan(tmp_path, plan(2, repeated=False))  # another study: an arm is pre-trained once
    assert [run.folder for run in read_plans(tmp_path)[tmp_path].runs] == [
        "pretrain-mae-seed2",
        "cars2",
        "cars1",
        "cars0",
    ]
