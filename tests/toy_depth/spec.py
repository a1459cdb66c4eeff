"""The toy task: all that tools, planner, studies and tables need to know of it."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from backbones.config import FAMILY
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.spec import Scores, TaskSpec
from metrics.metric import error
from metrics.result_lines import Lines, Resampler, mean_of
from tests.toy_depth.config import DepthConfig

if TYPE_CHECKING:
    from engine.memory.plan import Plannable

RMSE = error("rmse", unit="m")


def tiny() -> DepthConfig:
    """Four steps on images of 64 px."""
    return DepthConfig(
        backbone=FAMILY["vit_demo_tiny_patch8"],
        run=RunConfig(
            length=Duration(4), batch_size=4, optim=OptimConfig(base_lr=1e-3), schedule=ScheduleConfig(kind="constant")
        ),
    )


def resampler(lines: Lines) -> Resampler:
    """Return the resampler of the root of the mean squared error."""
    return mean_of(RMSE.name, [line["squared_error"] for line in lines], np.sqrt)


def _plan(config: DepthConfig, *, classes: int, masks: bool) -> Callable[[], "Plannable"]:
    from tests.toy_depth.task import plannable

    return partial(plannable, config)


DEPTH = TaskSpec(
    name="depth",
    tool="train_depth",
    config=DepthConfig,
    recipes={"tiny": tiny},
    module="tests.toy_depth.task",
    trained="tests.toy_depth.trained",
    plan=_plan,
    scores=(Scores(kind="depth", label="depth", metrics=(RMSE,), resampler=resampler),),
)
