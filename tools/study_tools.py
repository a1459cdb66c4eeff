"""The tools that a study calls, with what it has to know of them. Not a command: tools/run_benchmark.py uses it."""

import shutil
import typing
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from backbones.config import FAMILY
from benchmark.compare.fairness import Later
from benchmark.runner.attempt import Tool
from classification.config import ProbeConfig
from engine.config import as_json
from engine.flags import leaves
from engine.launch import TrainArgs, configured, train
from engine.spec import TaskSpec, TaskTable, of_tool, with_later_fields
from mae_transfer.tasks import TASKS
from metrics.accuracy import TOP1
from scenes.config import SceneCounts, ScenesConfig
from tools import hold_out, make_scenes, probe


def flags_of(args: type[Any], *configs: Any) -> dict[str, bool]:
    """Return the names of a tool's flags, its own and those of configurations, and whether each names a file."""
    hints = typing.get_type_hints(args)
    own = {f.name: Path in (hints[f.name], *typing.get_args(hints[f.name])) for f in fields(args)}
    return own | {leaf.name: leaf.is_file for config in configs for leaf in leaves(config)}


def trainer(specs: Sequence[TaskSpec], later: Later) -> Tool:
    """Return the tool that trains some tasks; `later` gives a configuration of before the fields of today."""

    def config(argv: list[str]) -> dict[str, Any]:
        return as_json(configured(argv, specs, doc=None)[1])

    def preload() -> None:
        for spec in specs:
            assert spec.module is not None
            import_module(spec.module)
        import_module("engine.training.loop")

    configs = [recipe() for spec in specs for recipe in spec.recipes.values()]
    return Tool(
        main=partial(_train, specs),
        config=config,
        flags=flags_of(TrainArgs, *configs),
        later=later,
        metric=specs[0].primary,
        preload=preload,
    )


def _train(specs: Sequence[TaskSpec], argv: list[str]) -> int:
    return train(argv, specs, doc=None)


def _probe(argv: list[str]) -> int:
    """Probe anew where a probe was cut off: its features are cached, and it refuses a folder with half its results."""
    out = Path(argv[argv.index("--out") + 1])
    for name in ("knn", "linear_features"):
        shutil.rmtree(out / name, ignore_errors=True)
    return probe.main([text for text in argv if text != "--resume"])


def _probe_config(argv: list[str]) -> dict[str, Any]:
    _, config = probe.configured(argv)
    return {**as_json(config), "leading": f"depth{config.backbone.depth:02d}_{config.pooling}"}


def _scene_flags() -> dict[str, bool]:
    """Return the flags of make_scenes, whose configuration is nested and whose command line is flat."""
    return {"out": True} | {f.name: False for part in (ScenesConfig, SceneCounts) for f in fields(part)}


def tools_for(tasks: TaskTable) -> dict[str, Tool]:
    """Return the tools that a study of these tasks calls."""
    later = partial(with_later_fields, tasks)
    probed = ProbeConfig(backbone=next(iter(FAMILY.values())))
    trained = dict.fromkeys(spec.tool for spec in tasks.values() if spec.module is not None)
    return {
        "make_scenes": Tool(main=make_scenes.main, config=None, flags=_scene_flags()),
        "hold_out": Tool(main=hold_out.main, config=None, flags={}),
        **{tool: trainer(of_tool(tasks, tool), later) for tool in trained},
        "probe": Tool(
            main=_probe,
            config=_probe_config,
            flags=flags_of(probe.Args, probed),
            later=later,
            metric=TOP1,
            preload=partial(import_module, "classification.probe.run"),
        ),
    }


TOOLS = tools_for(TASKS)
