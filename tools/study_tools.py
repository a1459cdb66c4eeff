"""The tools that a study calls, with what it has to know of them. Not a command: tools/run_benchmark.py uses it."""

import shutil
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmark.attempt import Tool
from classification.recipes import RECIPES as CLASSIFICATION
from detection.recipes import RECIPES as DETECTION
from engine.config import as_json
from engine.launch import choose_recipe, override, parse
from pretraining.recipes import RECIPES as PRETRAINING
from scenes.config import SceneCounts, ScenesConfig
from segmentation.recipes import RECIPES as SEGMENTATION
from tools import hold_out, make_scenes, pretrain, probe, train_cls, train_det, train_seg
from tools.kinds import with_later_fields


def flags_of(args: type[Any]) -> dict[str, bool]:
    """Return the names of a tool's flags, and whether each names a file or folder."""
    hints = typing.get_type_hints(args)
    return {f.name: Path in (hints[f.name], *typing.get_args(hints[f.name])) for f in fields(args)}


def _trainer(main: Callable[[list[str]], int], args: type[Any], recipes: dict[str, Callable[[], Any]]) -> Tool:
    def config(argv: list[str]) -> dict[str, Any]:
        given = parse(args, argv, doc=None)
        return as_json(override(choose_recipe(recipes, given.recipe), given))

    return Tool(main=main, config=config, flags=flags_of(args), later=with_later_fields)


def _probe(argv: list[str]) -> int:
    """Probe anew where a probe was cut off: its features are cached, and it refuses a folder with half its results."""
    out = Path(argv[argv.index("--out") + 1])
    for name in ("knn", "linear_features"):
        shutil.rmtree(out / name, ignore_errors=True)
    return probe.main([text for text in argv if text != "--resume"])


def _probe_config(argv: list[str]) -> dict[str, Any]:
    config = probe.config_of(parse(probe.Args, argv, doc=None))
    return {**as_json(config), "leading": f"depth{config.backbone.depth:02d}_{config.pooling}"}


def _scene_flags() -> dict[str, bool]:
    """Return the flags of make_scenes, whose configuration is nested and whose command line is flat."""
    return {"out": True} | {f.name: False for part in (ScenesConfig, SceneCounts) for f in fields(part)}


TOOLS = {
    "make_scenes": Tool(main=make_scenes.main, config=None, flags=_scene_flags()),
    "hold_out": Tool(main=hold_out.main, config=None, flags={}),
    "pretrain": _trainer(pretrain.main, pretrain.Args, PRETRAINING),
    "train_cls": _trainer(train_cls.main, train_cls.Args, CLASSIFICATION),
    "train_det": _trainer(train_det.main, train_det.Args, DETECTION),
    "train_seg": _trainer(train_seg.main, train_seg.Args, SEGMENTATION),
    "probe": Tool(main=_probe, config=_probe_config, flags=flags_of(probe.Args), later=with_later_fields),
}
