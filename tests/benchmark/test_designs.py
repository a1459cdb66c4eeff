"""Studies that pre-train more than once, have looks and margins, and know which test images belong together."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.compare.fairness import pretraining_problems
from benchmark.compare.records import open_store
from benchmark.study.file import dumped, parse_study, study_text
from benchmark.study.plan import Groups, Plan, read_plans
from benchmark.study.prepare import Prepared, prepare
from mae_transfer.tasks import TASKS
from tools.run_benchmark import TOOLS

TEXT = """
name: mine
data: root
seeds: [0, 1]
pretrain_seeds: tied
looks: [2, 3]
margins: {miou: 0.5, birds: 1}
arms:
  random: random
  labels: {pretrain: {recipe: tiny_supervised, data: photos, steps: 10}}
  mae: {pretrain: {recipe: tiny, data: photos, steps: 10}}
tasks:
  birds: {tool: train_cls, recipe: tiny, data: photos, search: {base_lrs: [1e-3, 2e-3], hold_out: 0.2}}
  cars: {tool: train_seg, recipe: tiny, data: photos, groups: {file: groups.csv}}
  boats: {tool: train_seg, recipe: tiny, data: photos, groups: {pattern: "^(.+?)_"}}
compare: {against: labels}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Prepared]:
    """A study whose data is there."""
    (tmp_path / "root/photos").mkdir(parents=True)
    (tmp_path / "root/groups.csv").write_text("a.png,one\n")

    def make(text: str) -> Prepared:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return prepare(str(file), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")

    return make


def starts(study: Prepared, cell: str) -> dict[str, str]:
    """Transfer run -> name of the pre-training that it starts from."""
    transfers = [run for run in study.runs if run.phase == "transfer" and run.name.startswith(cell)]
    return {run.name: "" if run.init is None else run.init.parent.name for run in transfers}


def test_tied_seeds_start_from_pre_trainings_of_their_own(made: Callable[[str], Prepared]) -> None:
    study = made(TEXT)
    study.refuse()
    pretrained = {run.name: run for run in study.runs if run.phase == "pretrain"}
    assert [*pretrained] == [f"pretrain-{arm}-seed{seed}" for seed in (0, 1) for arm in ("labels", "mae")]
    assert [run.settings["run"]["seed"] for run in pretrained.values() if run.settings] == [0, 0, 1, 1]
    assert {run.kind for run in pretrained.values()} == {"pretrain labels", "pretrain mae"}
    assert starts(study, "cars") == {
        f"cars-{arm}-seed{seed}": "" if arm == "random" else f"pretrain-{arm}-seed{seed}"
        for seed in (0, 1)
        for arm in ("random", "labels", "mae")
    }
    searched = [run for run in study.runs if run.phase == "search" and run.arm == "mae"]
    assert {run.init.parent.name for run in searched if run.init is not None} == {"pretrain-mae-seed0"}
    (late,) = (run for run in study.runs if run.name == "birds-mae-seed1")
    assert late.needs == ("pretrain-mae-seed1",)


def test_crossed_seeds_start_from_every_pre_training(made: Callable[[str], Prepared]) -> None:
    study = made(TEXT.replace("pretrain_seeds: tied", "pretrain_seeds: crossed\npretraining_seeds: [5, 6]"))
    study.refuse()
    assert sum(run.phase == "pretrain" for run in study.runs) == 2 * 2
    assert starts(study, "cars-mae") == {
        f"cars-mae-pretrain{start}-seed{seed}": f"pretrain-mae-seed{start}" for seed in (0, 1) for start in (5, 6)
    }
    assert [*starts(study, "cars-random")] == ["cars-random-seed0", "cars-random-seed1"]


def test_the_plan_has_what_was_declared_and_the_files_of_groups(
    made: Callable[[str], Prepared], tmp_path: Path
) -> None:
    study = made(TEXT)
    study.write_plan()
    plan = read_plans(tmp_path / "out")[tmp_path / "out"]
    assert (plan.pretrain_seeds, plan.looks, plan.margins) == ("tied", (2, 3), {"miou": 0.5, "birds": 1.0})
    assert plan.groups == {"cars": Groups(file="groups/cars.csv"), "boats": Groups(pattern="^(.+?)_")}
    assert (tmp_path / "out/groups/cars.csv").read_text() == "a.png,one\n"
    by_folder = {run.folder: run for run in plan.runs}
    assert by_folder["cars-mae-seed1"].pretrain_seed == by_folder["pretrain-mae-seed1"].pretrain_seed == 1
    assert by_folder["cars-random-seed1"].pretrain_seed is None
    command = by_folder["cars-mae-seed1"].command
    assert command.startswith("python tools/train_seg.py tiny --data ") and command.endswith("--arm mae --seed 1")
    assert json.loads((tmp_path / "out/study.json").read_text())["pretrain_seeds"] == "tied"
    assert parse_study(study_text(study.study), "x", TOOLS) == study.study
    (tmp_path / "root/groups.csv").unlink()  # the study's folder is enough
    made(TEXT).refuse()
    made(TEXT).write_plan()
    assert (tmp_path / "out/groups/cars.csv").read_text() == "a.png,one\n"


def test_the_copy_in_a_studys_folder_is_kept_as_it_is_and_a_file_of_ones_own_is_not_taken_for_one(
    made: Callable[[str], Prepared], tmp_path: Path
) -> None:
    made(TEXT).write_plan()
    copy = tmp_path / "out/study.yaml"
    values = yaml.safe_load(copy.read_text())
    values["arms"]["mae"]["pretrain"]["steps"] = ["10"]  # as earlier versions wrote a flag
    before = dumped(values)
    copy.write_text(before)
    again = prepare(str(copy), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")
    again.write_plan()
    assert again.is_copy and copy.read_text() == before
    copy.write_text("# mine\n" + before)
    with pytest.raises(ValueError, match="would be written"):
        prepare(str(copy), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")


def test_equal_budgets_hold_for_every_seed(made: Callable[[str], Prepared]) -> None:
    text = TEXT.replace("tiny_supervised, data: photos, steps: 10", "tiny_supervised, data: photos, steps: 12")
    with pytest.raises(ValueError, match=r"see different numbers of images: labels 768 .*; mae 640 "):
        made(text).refuse()
    costs = text.replace("steps: 12", "steps: 12, flops_per_image: 20").replace(
        "tiny, data: photos, steps: 10", "tiny, data: photos, steps: 10, flops_per_image: 10"
    )
    runs = made(costs.replace("compare:", "budget: {match: flops}\ncompare:")).runs
    steps = [(run.arm, run.job.args.steps) for run in runs if run.phase == "pretrain" and run.job is not None]
    assert steps == [("labels", 5), ("mae", 10)] * 2


def test_one_study_holds_labels_at_equal_samples_and_at_equal_flops(
    made: Callable[[str], Prepared], tmp_path: Path
) -> None:
    text = TEXT.replace("pretrain_seeds: tied\n", "budget: {match: samples, arms: {cheap: flops}}\n")
    text = text.replace(
        "tiny, data: photos, steps: 10}", "tiny, data: photos, steps: 10, flops_per_image: 10}"
    ).replace(
        "  mae:",
        "  cheap: {pretrain: {recipe: tiny_supervised, data: photos, steps: 10, flops_per_image: 25}}\n  mae:",
        1,
    )
    study = made(text)
    study.refuse()
    steps = {run.arm: run.job.args.steps for run in study.runs if run.phase == "pretrain" and run.job is not None}
    assert steps == {"labels": 10, "cheap": 4, "mae": 10}
    study.write_plan()
    plan = read_plans(tmp_path / "out")[tmp_path / "out"]
    assert [plan.match_of(arm) for arm in ("labels", "cheap", "mae")] == ["samples", "flops", "samples"]
    with pytest.raises(ValueError, match=r"budget\.arms: 'random' is not there; it is one of labels, cheap, mae"):
        made(text.replace("{cheap: flops}", "{random: flops}"))


def test_each_arm_is_held_to_its_own_budget(study: Any, record: Any) -> None:
    cost = record("mae", "random", 0, {}).cost
    for arm, samples, flops in (("mae", 1000, 10), ("labels", 1000, 25), ("cheap", 400, 25)):
        kept = replace(cost, flops_per_image=flops, frozen_flops_per_image=0)
        study.pretrain(arm, {"val_loss": 0.4}, samples_seen=samples, cost=kept)
    stored = open_store(study.root, TASKS).stored
    assert any("samples_seen" in line for line in pretraining_problems(stored, Plan(name="x")))
    assert pretraining_problems(stored, Plan(name="x", match_by_arm={"cheap": "flops"})) == []
    wrong = pretraining_problems(stored, Plan(name="x", match_by_arm={"cheap": "flops", "labels": "flops"}))
    assert len(wrong) == 1 and "differ by more than 1%" in wrong[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pretrain_seeds: tied", "pretrain_seeds: crossed", "pretraining_seeds: goes with `pretrain_seeds: crossed`"),
        (
            "pretrain_seeds: tied",
            "pretrain_seeds: crossed\npretraining_seeds: [5, 6, 7]",
            "pretraining_seeds: 3 pre-trainings and 2 transfer seeds; give as many `seeds` or more",
        ),
        ("looks: [2", "pretraining_seeds: [4]\nlooks: [2", "pretraining_seeds: goes with `pretrain_seeds: crossed`"),
        ("pretrain_seeds: tied", "pretrain_seeds: tide", r"pretrain_seeds: 'tide' is not there; .*Did you mean tied"),
        ("[2, 3]", "[3, 2]", r"looks: \[3, 2\] must rise, from two seeds on"),
        ("[2, 3]", "[1, 2]", r"looks: \[1, 2\] must rise, from two seeds on"),
        ("miou: 0.5", "miou: 0", r"margins\.miou: 0 is not above 0"),
        ("{file: groups.csv}", "{}", r"tasks\.cars\.groups: give a pattern or a file, one of them"),
        ("^(.+?)_", "^.+?_", r"tasks\.boats\.groups\.pattern: .* has 0 groups"),
        ("groups.csv", "gone.csv", r"tasks\.cars: .*gone\.csv is not there"),
    ],
)
def test_what_cannot_be_declared(made: Callable[[str], Prepared], old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        made(TEXT.replace(old, new)).refuse()
