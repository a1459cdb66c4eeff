"""Jobs of a study: what they hold is what their command line says, word by word."""

from pathlib import Path
from typing import Any

import pytest

from engine.config import Duration
from engine.flags import leaves
from engine.launch import configured
from engine.spec import of_tool
from mae_transfer.tasks import TASKS
from tools import in_context, probe, probe_dense
from tools.run_benchmark import TOOLS

OPTIONS: dict[str, dict[str, Any]] = {
    "pretrain": {"mask_ratio": 0.5, "ema_decay": 0.9, "warmup": Duration(1 / 3, "epochs"), "epochs": 0.1},
    "train_cls": {"steps": 3, "clip_norm": None, "betas": (0.9, 0.95), "protocol": "linear", "save_every": None},
    "train_det": {"max_per_device": 2, "val_json": "a b/c.json", "global_blocks": (), "cascade": True},
    "train_seg": {"init": Path("w.pth"), "init_source": "mae", "slide": 48, "precision": "bf16-mixed", "seed": 7},
}
PLACES = {"data": Path("d"), "out": Path("o")}


@pytest.mark.parametrize("tool", OPTIONS)
def test_the_command_line_makes_the_same_job(tool: str) -> None:
    specs = of_tool(TASKS, tool)
    for recipe in TOOLS[tool].recipes:
        known = TOOLS[tool].types(recipe)
        given = {name: value for name, value in OPTIONS[tool].items() if name in known}
        job = TOOLS[tool].job(recipe, {**PLACES, **given})
        args, config = configured(job.command(), specs, doc=None)
        assert args == job.args
        assert job.record is not None and job.record(args, job.config) == job.settings
        assert [leaf.default for leaf in leaves(config)] == [leaf.default for leaf in leaves(_whole(job))], recipe


def _whole(job: Any) -> Any:
    from engine.launch import with_length

    return with_length(job.args, job.config)


def test_a_probe_and_scenes_too() -> None:
    job = TOOLS["probe"].job("vit_demo_patch8", {**PLACES, "pooling": "mean", "cache": Path("c")})
    assert probe.configured(job.command()) == (job.args, job.config)
    job = TOOLS["probe_dense"].job("vit_demo_patch8", {**PLACES, "features": "raw", "image_size": [32, 48]})
    assert probe_dense.configured(job.command()) == (job.args, job.config)
    assert job.settings is not None and job.settings["leading"] == "raw"
    assert TOOLS["probe_dense"].records == ("knn_segmentation", "linear_segmentation")
    job = TOOLS["in_context"].job("vit_demo_patch8", {**PLACES, "method": "inpainting", "val_json": "a b.json"})
    assert in_context.configured(job.command()) == (job.args, job.config)
    assert job.settings is not None and job.settings["leading"] == "inpainting"
    assert TOOLS["in_context"].records == ("in_context",)
    scenes = TOOLS["make_scenes"].job(None, {"out": Path("o"), "image_size": (64, 32), "classify_train": 7})
    assert scenes.command() == ["--out", "o", "--image-size", "64", "32", "--classify-train", "7"]
    assert scenes.settings is None and scenes.config.counts.classify_train == 7


def test_a_file_that_a_task_names_as_text_is_a_path_of_the_tool_that_holds_out() -> None:
    given = {"tool": "train_det", "data": Path("d"), "out": Path("o"), "train_json": "d/some.json"}
    assert TOOLS["hold_out"].job(None, given).args.train_json == Path("d/some.json")


def test_a_value_that_makes_no_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        TOOLS["train_cls"].job("tiny", {**PLACES, "batch_size": 0})
    with pytest.raises(ValueError, match="--steps and --epochs were both given"):
        TOOLS["train_cls"].job("tiny", {**PLACES, "steps": 1, "epochs": 1.0})
