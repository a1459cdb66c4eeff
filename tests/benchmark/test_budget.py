"""Budgets of pre-training: crops are samples, and the MACs are those of a record of the very same settings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.fairness import pretraining_problems
from benchmark.compare.records import open_store
from benchmark.study.budget import Length, flops_lengths, unequal_samples
from benchmark.study.plan import Plan
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.sections import Budget
from engine.config import Duration
from engine.records.record import RunRecord, write_record
from mae_transfer.tasks import TASKS
from tests.benchmark.conftest import COST
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]
TWO = """
name: two
data: root
seeds: [0]
budget: {match: flops}
arms:
  low: {pretrain: {recipe: tiny, data: photos, steps: 90, mask_ratio: 0.5}}
  high: {pretrain: {recipe: tiny, data: photos, steps: 90, mask_ratio: 0.75}}
tasks:
  birds: {tool: train_cls, recipe: tiny, data: birds}
compare: {claim: low, against: high}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Prepared]:
    """A study whose data is there."""
    for name in ("photos", "birds"):
        (tmp_path / "root" / name).mkdir(parents=True)

    def make(text: str) -> Prepared:
        file = tmp_path / "two.yaml"
        file.write_text(text)
        return prepare(str(file), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")

    return make


def steps(study: Prepared) -> list[int | None]:
    """Steps of the two pre-trainings, low first."""
    return [run.job.args.steps for run in study.runs if run.phase == "pretrain" and run.job is not None]


def recorded(
    study: Prepared, record: Record, arm: str, *, flops: int, frozen: int = 0, folder: str = "", **run: Any
) -> None:
    """Leave a record of the settings of an arm, `run` apart, as a run would."""
    plain = replace(study, study=study.study.model_copy(update={"budget": Budget(match="none")}))
    (wanted,) = (item for item in plain.runs if item.phase == "pretrain" and item.arm == arm)
    config = wanted.settings
    assert config is not None
    config = {**config, "run": {**config["run"], **run}}
    done = record("mae", "random", 0, {"val_loss": 0.4}, config=json.loads(json.dumps(config)))
    cost = replace(done.cost, flops_per_image=flops, frozen_flops_per_image=frozen)
    write_record(study.out / (folder or f"pretrain-{arm}"), replace(done, cost=cost))


def test_crops_of_an_image_are_samples() -> None:
    config = {"run": {"length": {"value": 10, "unit": "steps"}, "batch_size": 64}}
    labels, once = Length.of("labels", config), Length.of("once", {**config, "repeats": 1})
    eight = Length.of("eight", {**config, "repeats": 8})
    assert (labels.samples, once.samples, eight.samples) == (("images", 640), ("images", 640), ("images", 5120))
    assert unequal_samples([labels, once]) is None
    said = unequal_samples([once, eight])
    assert said is not None and "once 640 images (10 steps of 64); eight 5,120 images (10 steps of 64, 8 crops" in said
    assert unequal_samples([replace(once, value=80), eight]) is None
    epochs = replace(eight, value=100, unit="epochs")
    assert str(epochs) == "800 epochs (100, 8 crops of each)"
    assert unequal_samples([epochs, replace(once, value=800, unit="epochs")]) is None
    samples = {"run": {"length": {"value": 640, "unit": "samples"}, "batch_size": 64}, "repeats": 8}
    assert Length.of("samples", samples).samples == eight.samples


def test_rounding_of_a_product_is_no_other_length() -> None:
    crops = Length(arm="crops", value=0.1, unit="epochs", batch_size=64, repeats=3)
    once = replace(crops, arm="once", value=0.3, repeats=1)
    assert crops.samples != once.samples and unequal_samples([crops, once]) is None
    assert unequal_samples([crops, replace(once, value=0.301)]) is not None


def pretrained(study: Any, arm: str, *, steps: int, of_a_step: int, flops: int = 10) -> None:
    """A finished pre-training of so many steps."""
    cost = replace(COST, flops_per_image=flops, frozen_flops_per_image=0)
    study.pretrain(arm, {"val_loss": 0.4}, steps=steps, total_steps=steps, samples_seen=steps * of_a_step, cost=cost)


def unmatched(study: Any, match: Any) -> list[str]:
    return pretraining_problems(open_store(study.root, TASKS).stored, Plan(name="x", match=match))


def test_equal_epochs_in_whole_steps_are_equal(study: Any) -> None:
    """300 epochs of 1,281,167 images are 93,836 steps of 4,096 and 375,342 of 1,024; 8 crops each for an eighth too."""
    pretrained(study, "mae", steps=93_836, of_a_step=4096)
    pretrained(study, "labels", steps=375_342, of_a_step=1024)
    eighth = Duration(37.5, "epochs").steps(batch_size=4096, dataset_size=1_281_167)
    pretrained(study, "crops", steps=eighth, of_a_step=8 * 4096)
    assert len({item.record.samples_seen for item in open_store(study.root, TASKS).stored}) == 3
    assert unmatched(study, "samples") == []
    pretrained(study, "labels", steps=375_348, of_a_step=1024)  # a step of 4,096 more than `mae`
    assert unmatched(study, "samples") == [
        "samples_seen: 384356352 -> 384352256 (from pretrain-labels to pretrain-mae)"
    ]


def test_budgets_of_few_steps_are_as_near_as_whole_steps_can_be(study: Any) -> None:
    """30 steps at 10 MACs cost as much as 12.5 at 24; 12 and 13 are within a step, 4 % off, and 14 are not."""
    pretrained(study, "mae", steps=30, of_a_step=64, flops=10)
    for steps in (12, 13):
        pretrained(study, "labels", steps=steps, of_a_step=64, flops=24)
        assert unmatched(study, "flops") == []
    pretrained(study, "labels", steps=14, of_a_step=64, flops=24)
    (line,) = unmatched(study, "flops")
    assert line.startswith("MACs of training: the pre-trainings differ by more than 1% and a step (")


def test_flops_count_every_crop() -> None:
    one = Length(arm="one", value=100, unit="steps", batch_size=64)
    four = replace(one, arm="four", repeats=4)
    flops = {"one": 300.0, "four": 300.0}
    assert flops_lengths([one, four], flops, "one")["four"] == {"steps": 25}
    assert flops_lengths([one, four], flops, "four")["one"] == {"steps": 400}
    epochs = [replace(length, unit="epochs") for length in (one, four)]
    assert flops_lengths(epochs, flops, "one")["four"] == {"epochs": 25.0}


def test_crops_are_compared_before_a_study_runs(made: Callable[[str], Prepared]) -> None:
    text = TWO.replace("match: flops", "match: samples")
    made(text).refuse()
    with pytest.raises(ValueError, match=r"low 46,080 images \(90 steps of 64, 8 crops of each\); high 5,760 images"):
        made(text.replace("mask_ratio: 0.5", "mask_ratio: 0.5, repeats: 8")).refuse()
    fewer = text.replace("steps: 90, mask_ratio: 0.75", "steps: 720, mask_ratio: 0.75")
    made(fewer.replace("mask_ratio: 0.5", "mask_ratio: 0.5, repeats: 8")).refuse()


def test_arms_of_one_recipe_have_macs_of_their_own(made: Callable[[str], Prepared], record: Record) -> None:
    recorded(made(TWO), record, "high", flops=100)
    with pytest.raises(ValueError, match="MACs per image of low are not known: no record of such a run"):
        made(TWO).refuse()  # the recipe of `high` is the same, its mask ratio is not
    recorded(made(TWO), record, "low", flops=300)
    assert steps(made(TWO)) == [90, 270]


def test_a_record_of_another_length_and_seed_will_do(made: Callable[[str], Prepared], record: Record) -> None:
    recorded(made(TWO), record, "high", flops=100)
    recorded(made(TWO), record, "low", flops=900, folder="pretrain-a", batch_size=32)
    with pytest.raises(ValueError, match="MACs per image of low are not known"):
        made(TWO).refuse()
    recorded(made(TWO), record, "low", flops=200, folder="pretrain-b", length={"value": 1, "unit": "steps"}, seed=3)
    assert steps(made(TWO)) == [90, 180]
    recorded(made(TWO), record, "low", flops=300)
    assert steps(made(TWO)) == [90, 270]  # its own goes first


def test_what_is_frozen_costs_a_forward_pass_alone(made: Callable[[str], Prepared], record: Record) -> None:
    recorded(made(TWO), record, "low", flops=100, frozen=100)
    recorded(made(TWO), record, "high", flops=100)
    assert steps(made(TWO)) == [90, 120]  # (3 * 100 + 100) / (3 * 100)
    assert steps(made(TWO.replace("mask_ratio: 0.75", "mask_ratio: 0.75, flops_per_image: 200"))) == [90, 60]


def test_the_cost_of_an_arm_has_what_is_frozen_once(study: Any, record: Record) -> None:
    cost = record("mae", "random", 0, {}).cost
    study.pretrain("moco_v3", {"val_loss": 0.4}, cost=replace(cost, flops_per_image=6, frozen_flops_per_image=2))
    study.transfer("classification", "moco_v3", [70.0])
    (moco,) = (found for found in compare(open_store(study.root, TASKS), resamples=0).costs if found.arm == "moco_v3")
    assert moco.training_flops == 3 * 6 + 2
