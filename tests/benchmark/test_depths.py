"""Arms of several depths: what follows from the depth is no difference, what does not is one."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backbones.config import FAMILY, ViTConfig
from benchmark.compare.comparison import compare
from benchmark.compare.fairness import transfer_problems
from benchmark.compare.records import Stored, open_store
from benchmark.study.plan import Plan, Planned, write_plan
from classification.config import ProbeConfig
from engine.config import as_json
from engine.records.record import RunRecord
from engine.spec import at_recipes_depth
from mae_transfer.tasks import TASKS
from segmentation.spec import SEGMENTATION

Record = Callable[..., RunRecord]
DIFFER = ("architecture.depth", "architecture.embed_dim", "architecture.num_heads")
AT_DEPTH = partial(at_recipes_depth, TASKS)


def as_recorded(config: Any) -> dict[str, Any]:
    """As a record's JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(as_json(config)))
    return found


def segmented(record: Record, arm: str, depth: int, *, width: int = 768, **changes: Any) -> Stored:
    """A run of a recipe of 12 blocks, as the tool has it for a ViT of `depth` blocks."""
    recipe = SEGMENTATION.recipes["mae_base_100ep"]()
    vit = replace(recipe.backbone, depth=depth, embed_dim=width, num_heads=width // 64)
    config = replace(replace(recipe, backbone=vit).following(recipe), **changes)
    made = record("segmentation", arm, 0, {"miou": 40.0}, config=as_recorded(config), recipe="mae_base_100ep")
    return stored(replace(made, architecture=json.loads(json.dumps(asdict(vit)))), arm)


def probed(record: Record, arm: str, vit: ViTConfig, task: str, leading: str) -> Stored:
    """A probe, whose record names the outcome that leads."""
    config = {**as_recorded(ProbeConfig(backbone=vit, pooling="mean")), "leading": leading}
    architecture = json.loads(json.dumps(asdict(vit)))
    made = record(task, arm, 0, {"top1": 40.0}, config=config, architecture=architecture, recipe=task)
    return stored(made, arm)


def stored(record: RunRecord, arm: str) -> Stored:
    """A record in a folder called as its arm."""
    return Stored(folder=Path(arm), record=record, arm=arm, line=None)


@pytest.mark.parametrize("differ", [("architecture",), DIFFER])
def test_blocks_that_follow_the_depth_are_no_difference(record: Record, differ: tuple[str, ...]) -> None:
    """The recipe's blocks 3, 5, 7 and 11 of 12 are 7, 11, 15 and 23 of 24; and 10, 15, 20 and 31 of 32."""
    base, large, huge = (
        segmented(record, "mae", 12),
        segmented(record, "large", 24, width=1024),
        segmented(record, "huge", 32, width=1280),
    )
    assert large.record.config["out_indices"] == [7, 11, 15, 23]
    assert huge.record.config["out_indices"] == [10, 15, 20, 31]
    assert transfer_problems([base, large, huge], differ, at_depth=AT_DEPTH) == []
    assert transfer_problems([huge, large], differ, at_depth=AT_DEPTH) == []
    alone = [line.partition(" (from ")[0] for line in transfer_problems([base, large], (), at_depth=AT_DEPTH)]
    assert "config.out_indices: [3, 5, 7, 11] -> [7, 11, 15, 23]" in alone and "architecture.depth: 12 -> 24" in alone


def test_blocks_that_do_not_follow_the_depth_are_one(record: Record) -> None:
    base, other = segmented(record, "mae", 12), segmented(record, "other", 24, out_indices=(5, 11, 17, 23))
    assert transfer_problems([base, other], ("architecture",), at_depth=AT_DEPTH) == [
        "config.out_indices: [3, 5, 7, 11] -> [5, 11, 17, 23] (from mae to other)"
    ]
    same = segmented(record, "same", 12, out_indices=(2, 5, 8, 11))
    assert transfer_problems([base, same], ("architecture",), at_depth=AT_DEPTH) == [
        "config.out_indices: [3, 5, 7, 11] -> [2, 5, 8, 11] (from mae to same)"
    ]


@pytest.mark.parametrize(("task", "end"), [("linear_features", ""), ("knn", "_k20")])
def test_the_last_block_of_a_probe_is_the_last_of_any_depth(record: Record, task: str, end: str) -> None:
    small, large = FAMILY["vit_base_patch16"], FAMILY["vit_large_patch16"]
    one = probed(record, "mae", small, task, f"depth12_mean{end}")
    two = probed(record, "large", large, task, f"depth24_mean{end}")
    assert transfer_problems([one, two], ("architecture",), at_depth=AT_DEPTH) == []
    inner = probed(record, "inner", large, task, f"depth12_mean{end}")
    assert transfer_problems([one, inner], ("architecture",), at_depth=AT_DEPTH) == [
        f"config.leading: last_mean{end} -> depth12_mean{end} (from mae to inner)"
    ]


def test_a_study_of_two_depths_has_a_verdict(study: Any, record: Record) -> None:
    """From the records in its folder to the table, in segmentation and in a probe."""
    planned = []
    for seed in range(3):
        for arm, depth, width in (("mae", 12, 768), ("large", 24, 1024)):
            names = f"seg-{arm}-{seed}", f"probe-{arm}-{seed}"
            planned += [
                Planned(folder=name, phase="transfer", kind="x", task=name.partition("-")[0], arm=arm) for name in names
            ]
            made = segmented(record, arm, depth, width=width).record
            config = {**made.config, "run": {**made.config["run"], "seed": seed}}
            study.add(names[0], replace(made, seed=seed, run_id=f"{arm}{seed}", config=config))
            vit = FAMILY["vit_base_patch16"] if depth == 12 else FAMILY["vit_large_patch16"]
            probe = probed(record, arm, vit, "linear_features", f"depth{depth}_mean").record
            study.add(names[1], replace(probe, seed=seed, config={**probe.config, "seed": seed}))
    plan = Plan(name="depths", claim="large", against="mae", differ=("architecture",), runs=tuple(planned))
    write_plan(study.root, plan)
    rows = {row.metric.name: row for row in compare(open_store(study.root, TASKS), resamples=0).rows}
    assert rows["miou"].refused == () and rows["top1"].refused == ()
