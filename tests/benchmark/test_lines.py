"""Arms by label, a line for every protocol and share of the labels, what a study's plan says of its folders."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.fairness import pretraining_problems
from benchmark.compare.lines import Line, arm_of, line_of, made_weights
from benchmark.compare.records import open_store
from benchmark.report.tables import record_lines
from benchmark.study.plan import Plan, Planned, read_plans, write_plan
from benchmark.study.search import Choice, Tried
from classification.spec import CLASSIFICATION, KNN
from detection.spec import LVIS
from engine.config import as_json
from engine.records.record import RunRecord, read_record, write_record
from mae_transfer.tasks import TASKS

Record = Callable[..., RunRecord]


def test_an_arm_is_its_label_else_what_made_its_weights(record: Record) -> None:
    run = record("classification", "mae", 0, {"top1": 50.0})
    assert arm_of(run, pretrained=False) == "mae"
    assert arm_of(replace(run, arm="mae_1600"), pretrained=False) == "mae_1600"
    pretraining = record("supervised", "random", 0, {"top1": 90.0}, outputs=("backbone.safetensors",))
    assert made_weights(pretraining, TASKS) and not made_weights(replace(pretraining, outputs=()), TASKS)
    assert arm_of(pretraining, pretrained=True) == "supervised"
    assert arm_of(replace(pretraining, arm="labels"), pretrained=True) == "labels"
    transfer = replace(run, outputs=("backbone.safetensors",))
    assert not made_weights(transfer, TASKS), "what a transfer leaves is no arm"


@pytest.mark.parametrize(
    ("changes", "metrics", "line"),
    [
        ({}, {"top1": 1.0}, Line("classification", CLASSIFICATION.scores[0])),
        ({"protocol": "linear"}, {"top1": 1.0}, Line("classification, linear", CLASSIFICATION.scores[0])),
        (
            {"protocol": "partial", "tuned_blocks": 0.5, "label_fraction": 0.01},
            {"top1": 1.0},
            Line("classification, partial 0.5, 1 % of labels", CLASSIFICATION.scores[0], label_fraction=0.01),
        ),
        ({"label_fraction": 1.0}, {"top1": 1.0}, Line("classification", CLASSIFICATION.scores[0])),
        ({"protocol": "partial"}, {"top1": 1.0}, Line("classification, partial 1", CLASSIFICATION.scores[0])),
    ],
)
def test_protocols_and_shares_have_lines_of_their_own(
    record: Record, changes: dict[str, Any], metrics: dict[str, float], line: Line
) -> None:
    assert line_of(record("classification", "mae", 0, metrics, config=changes), TASKS) == line


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"protocol": "partial", "tuned_blocks": "x"}, "config.tuned_blocks: 'x' is no number above 0"),
        ({"protocol": ["partial"], "tuned_blocks": None}, "config.protocol: .* is no text; config.tuned_blocks: None"),
    ],
)
def test_what_lines_read_of_a_configuration_is_typed(
    record: Record, tmp_path: Path, config: dict[str, Any], fault: str
) -> None:
    write_record(tmp_path, record("classification", "mae", 0, {"top1": 1.0}, config=config))
    with pytest.raises(ValueError, match=rf"record\.json: not a readable record .*{fault}"):
        read_record(tmp_path)


def test_lines_of_probes_and_lvis(record: Record) -> None:
    probe = record("knn", "mae", 0, {"top1": 1.0}, config={"seed": 0})
    assert line_of(probe, TASKS) == Line("classification, k-NN", KNN.scores[0])
    assert line_of(probe, TASKS, "cifar") == Line("cifar, k-NN", KNN.scores[0], "cifar")
    lvis = record("detection", "mae", 0, {"box_ap": 1.0, "box_ar300": 2.0})
    assert line_of(lvis, TASKS) == Line("detection, LVIS", LVIS)
    assert line_of(record("mae", "random", 0, {"val_loss": 1.0}), TASKS) is None
    assert [metric.name for metric in LVIS.metrics[:2]] == ["box_ap", "mask_ap"]


def test_files_of_one_source_are_told_apart(study: Any, record: Record) -> None:
    for seed in (0, 1):
        for label, value in (("mae_800", 60.0), ("mae_1600", 64.0)):
            run = record("classification", "mae", seed, {"top1": value + seed})
            study.add(f"{label}-{seed}", replace(run, arm=label))
    comparison = compare(open_store(study.root, TASKS))
    row = comparison.rows[0]
    assert comparison.arms[-2:] == ("mae_1600", "mae_800") and not row.refused
    assert row.values["mae_800"] == {0: 60.0, 1: 61.0} and "mae" not in row.values


def test_rows_of_probes_and_of_shares(study: Any, record: Record) -> None:
    for arm, value in (("mae", 60.0), ("supervised", 50.0)):
        for seed in (0, 1):
            study.add(f"a-{arm}{seed}", record("knn", arm, seed, {"top1": value}, config={"seed": seed, "k": 20}))
            for share in (0.1, 1.0):
                config = {"label_fraction": share, "run": {"seed": seed}}
                run = record("classification", arm, seed, {"top1": value * share}, config=config, train_images=9)
                study.add(f"{arm}{seed}-{share}", run)
    rows = {row.task: row for row in compare(open_store(study.root, TASKS)).rows}
    assert not any(row.refused for row in rows.values())
    assert rows["classification, k-NN"].values["mae"] == {0: 60.0, 1: 60.0}
    assert rows["classification, 10 % of labels"].values["supervised"] == {0: 5.0, 1: 5.0}
    assert rows["classification"].values["supervised"] == {0: 50.0, 1: 50.0}


def planned(study: Any, record: Record, *, rates: dict[str, float], chosen: dict[str, float]) -> None:
    """A study of one task whose runs have these rates, and whose searches chose those."""
    runs = []
    for arm in ("mae", "labels"):
        choice = Choice(
            task="cars", arm=arm, metric="top1", val_split="held-out", val_images=20, seed=100, base_lr=chosen[arm],
            tried=(Tried(base_lr=1e-3, value=40.0), Tried(base_lr=2e-3, value=30.0), Tried(base_lr=4e-3, value=None)),
        )  # fmt: skip
        folder = study.root / f"search/cars-{arm}"
        folder.mkdir(parents=True)
        (folder / "choice.json").write_text(json.dumps(as_json(choice)))
        search = record("classification", arm, 100, {"top1": 99.0}, config={"other": 1})
        study.add(f"search/cars-{arm}/lr0.001", search)
        runs.append(Planned(folder=f"search/cars-{arm}/lr0.001", phase="search", kind="search cars", task="cars"))
        for seed in (0, 1):
            config = {"run": {"seed": seed, "optim": {"base_lr": rates[arm]}}}
            name = f"cars-{arm}-seed{seed}"
            study.add(name, record("classification", "own", seed, {"top1": 50.0 + seed}, config=config))
            place = f"search/cars-{arm}"
            runs.append(
                Planned(folder=name, phase="transfer", kind="transfer cars", task="cars", arm=arm, choice=place)
            )
    runs.append(Planned(folder="cars-mae-seed2", phase="transfer", kind="transfer cars", task="cars", arm="mae"))
    write_plan(study.root, Plan(name="x", claim="mae", against="labels", arms=("mae", "labels"), runs=tuple(runs)))


def test_a_study_names_arms_tasks_and_its_claim(study: Any, record: Record) -> None:
    planned(study, record, rates={"mae": 1e-3, "labels": 2e-3}, chosen={"mae": 1e-3, "labels": 2e-3})
    study.add("stray", record("classification", "mae", 5, {"top1": 1.0}))
    comparison = compare(open_store(study.root, TASKS))
    (row,) = comparison.rows
    assert (row.task, comparison.arms) == ("cars", ("mae", "labels"))
    assert row.refused == () and row.headline is not None and row.headline.reference == "labels"
    text = "\n".join(record_lines(comparison))
    assert (
        "Learning rate of mae in cars: 0.001, by top1 on 20 images (held-out) with seed 100 (0.001: 40.00, 0.002: "
        "30.00, 0.004: diverged). WARNING: 0.001 is the lowest of the grid; a better one may lie beyond" in text
    )
    assert "Learning rate of labels in cars: 0.002" in text and text.count("WARNING") == 1
    assert f"Left out, in the study's folder but not one of its runs: {study.root}/stray" in text
    assert "Not run so far, cars: 1 planned runs have no record." in text


def test_a_rate_that_no_search_chose_is_refused(study: Any, record: Record) -> None:
    planned(study, record, rates={"mae": 1e-3, "labels": 2e-3}, chosen={"mae": 1e-3, "labels": 1e-3})
    (row,) = compare(open_store(study.root, TASKS)).rows
    assert row.headline is None
    assert row.refused == (
        "config.run.optim.base_lr: 0.002 -> as searched (from cars-labels-seed0 to cars-mae-seed0)",
    ) or row.refused == ("config.run.optim.base_lr: as searched -> 0.002 (from cars-mae-seed0 to cars-labels-seed0)",)


@pytest.mark.parametrize(
    ("match", "samples", "flops", "field"),
    [
        ("samples", 12800, 500, "samples_seen: "),
        ("flops", 12800, 500, None),
        ("flops", 12800, 510, "MACs of training: the pre-trainings differ by more than 1%"),
        ("flops", 12800, None, "flops_per_image: not recorded of pretrain-mae"),
        ("none", 99, 1, None),
    ],
)
def test_budgets_of_the_arms(study: Any, match: str, samples: int, flops: int | None, field: str | None) -> None:
    cost = replace(_cost_of(study), flops_per_image=1000)
    study.pretrain("supervised", {"top1": 90.0}, samples_seen=6400, cost=cost)
    study.pretrain("mae", {"val_loss": 0.4}, samples_seen=samples, cost=replace(cost, flops_per_image=flops))
    problems = pretraining_problems(open_store(study.root, TASKS).stored, Plan(name="x", match=match))
    assert (len(problems), not problems or problems[0].startswith(field or "?")) == (int(field is not None), True)


def _cost_of(study: Any) -> Any:
    study.pretrain("probe", {"val_loss": 1.0})
    (item,) = open_store(study.root, TASKS).stored
    (item.folder / "record.json").unlink()
    return item.record.cost


def test_plans_that_claim_different_things_are_not_mixed(tmp_path: Path) -> None:
    write_plan(tmp_path / "a", Plan(name="a"))
    write_plan(tmp_path / "b", Plan(name="b", match="none"))
    with pytest.raises(ValueError, match=r"b/study\.json: match is 'none', and 'samples' in .*exported one by one"):
        read_plans(tmp_path)
    (tmp_path / "b/study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"b/study\.json: not a readable plan"):
        read_plans(tmp_path)


def test_seeds_of_an_earlier_plan_stay_and_other_runs_do_not(tmp_path: Path) -> None:
    def run(folder: str, arm: str = "mae") -> Planned:
        return Planned(folder=folder, phase="transfer", kind="transfer cars", task="cars", arm=arm)

    write_plan(tmp_path, Plan(name="a", runs=(run("cars-mae-seed0"), run("cars-mae-seed1"), run("x", "gone"))))
    write_plan(tmp_path, Plan(name="a", runs=(run("cars-mae-seed0"),)))
    assert [item.folder for item in read_plans(tmp_path)[tmp_path].runs] == ["cars-mae-seed0", "cars-mae-seed1"]
