"""What the start of a run adds to its configuration is no other setting: the same study again finds it finished."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones.weights.normalisation import Normalisation
from benchmark.runner.recorded import other_settings
from benchmark.study.checks import _recorded_flops
from benchmark.study.run import Run
from engine.config import as_json, micro_batches
from engine.launch import adopted, with_length
from engine.records.record import RunRecord, write_record
from mae_transfer.tasks import TASKS
from tools import train_seg
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]
Planned = Callable[..., Run]
SEGMENTATION = TASKS["segmentation"]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """A run of a tool with flags, as a study plans it."""
    (tmp_path / "images").mkdir()

    def make(tool: str, recipe: str, **flags: Any) -> Run:
        given = {"data": tmp_path / "images", "out": tmp_path / "out", **flags}
        return Run(
            name="x", tool=tool, recipe=recipe, job=TOOLS[tool].job(recipe, given), out=tmp_path / "out",
            logs=tmp_path, phase="transfer", kind="x", data=given["data"], init=flags.get("init"),
            records=(tmp_path / "out",),
        )  # fmt: skip

    return make


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    return path


def left(run: Run, record: Record, task: str, config: dict[str, Any], **changes: Any) -> RunRecord:
    """The record that a run leaves with a configuration."""
    sha256 = None if run.init is None else hashlib.sha256(run.init.read_bytes()).hexdigest()
    config = json.loads(json.dumps(config))
    values = {"data": str(run.data), "weights_sha256": sha256, "recipe": run.recipe, **changes}
    return record(task, "mae", 0, {"top1": 1.0}, config=config, **values)


def others(run: Run, record: RunRecord) -> list[str]:
    return other_settings(run, record, TOOLS[run.tool].later)


def test_the_statistics_of_the_images_are_the_runs_own(planned: Planned, record: Record, tmp_path: Path) -> None:
    run = planned("pretrain", "tiny", statistics=True, steps=10)
    assert run.job is not None
    measured = Normalisation((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    config = as_json(with_length(run.job.args, replace(run.job.config, normalisation=measured)))
    made = left(run, record, "mae", config)
    assert others(run, made) == []
    assert others(planned("pretrain", "tiny", steps=10), made) == [
        "normalisation: {'mean': [0.4, 0.4, 0.4], 'std': [0.2, 0.2, 0.2]} -> None",
        "statistics: True -> False",
    ]
    write_record(tmp_path / "out", replace(made, cost=replace(made.cost, flops_per_image=5)))
    assert _recorded_flops(tmp_path, run) == 15
    assert _recorded_flops(tmp_path, planned("pretrain", "tiny", steps=10)) is None


@pytest.mark.parametrize(("depth", "blocks"), [(4, [0, 1, 2, 3]), (12, [3, 5, 7, 11])])
def test_blocks_of_a_head_follow_a_flag_of_the_depth(
    planned: Planned, record: Record, depth: int, blocks: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe reads blocks 1, 2, 3 and 5 of 6."""
    run = planned("train_seg", "tiny", depth=depth)
    assert run.job is not None and run.settings is not None
    ran = adopted(run.job.args, run.job.config, SEGMENTATION, None)
    assert [*ran.out_indices] == [*run.settings["out_indices"]] == blocks
    assert others(run, left(run, record, "segmentation", as_json(ran))) == []
    assert train_seg.main(["tiny", "--depth", str(depth), "--show"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["out_indices"] == blocks


def test_blocks_of_a_head_follow_the_depth_of_the_weights(planned: Planned, record: Record, weights: Path) -> None:
    run = planned("train_seg", "tiny", init=weights, init_architecture="file")
    assert run.job is not None
    deeper = replace(run.job.config, backbone=replace(run.job.config.backbone, depth=12))
    config = as_json(SEGMENTATION.followed(deeper, "tiny"))
    assert [*config["out_indices"]] == [3, 5, 7, 11]
    assert others(run, left(run, record, "segmentation", config)) == []
    odd = {**config, "out_indices": [2, 5, 8, 11]}
    assert others(run, left(run, record, "segmentation", odd)) == ["out_indices: [2, 5, 8, 11] -> [1, 2, 3, 5]"]


def test_a_probes_last_block_is_that_of_the_weights(planned: Planned, record: Record, weights: Path) -> None:
    run = planned("probe", "vit_base_patch16", init=weights, init_architecture="file", pooling="mean")
    settings = run.settings
    assert settings is not None and settings["leading"] == "depth12_mean"
    deeper = {**settings["backbone"], "depth": 24, "embed_dim": 1024, "num_heads": 16}
    config = {**settings, "backbone": deeper, "leading": "depth24_mean"}
    assert others(run, left(run, record, "linear_features", config, recipe="linear_features")) == []
    config["leading"] = "depth24_class"
    (said,) = others(run, left(run, record, "linear_features", config, recipe="linear_features"))
    assert said == "leading: last_class -> last_mean"


def test_micro_batches_are_those_of_as_many_processes(planned: Planned, record: Record) -> None:
    """A batch of 64 with 4 images at once: 16 micro-batches of one process, 2 of eight."""
    run = planned("train_cls", "tiny", max_per_device=4, batch_size=64)
    assert run.settings is not None
    config = {**run.settings, "run": {**run.settings["run"], "accumulate": micro_batches(64, 4, 8)}}
    assert (run.settings["run"]["accumulate"], config["run"]["accumulate"]) == (16, 2)
    assert others(run, left(run, record, "classification", config, world_size=8)) == []
    assert others(run, left(run, record, "classification", config)) == ["run.accumulate: 2 -> 16"]
