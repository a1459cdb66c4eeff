"""Budgets of pre-training: crops are samples, and the MACs are those of a record of the very same settings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.study.budget import Length, flops_lengths, unequal_samples
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.sections import Budget
from engine.records.record import RunRecord, write_record
from mae_transfer.tasks import TASKS
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
