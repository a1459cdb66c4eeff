"""What tools, planner, studies and tables know of segmentation."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from backbones.config import blocks_at_depth
from engine.spec import Config, Scores, TaskSpec
from metrics import foreground, miou
from segmentation.config import SegmentationConfig
from segmentation.in_context.config import InContextConfig
from segmentation.probe.config import DenseProbeConfig
from segmentation.recipes import RECIPES

if TYPE_CHECKING:
    from engine.memory.plan import Plannable


def _plan(config: SegmentationConfig, *, classes: int, masks: bool) -> Callable[[], "Plannable"]:
    from segmentation.plan import plannable

    return lambda: plannable(config, num_classes=classes)


def _at_recipes_depth(config: Config, recipe: str) -> Config:
    """Give blocks that lie at the recipe's shares of another depth the recipe's numbers."""
    depth = config.get("backbone", {}).get("depth")
    if recipe not in RECIPES or not isinstance(depth, int):
        return config
    made = RECIPES[recipe]()
    follow = blocks_at_depth(made.out_indices, made.backbone.depth, depth)
    if [*config.get("out_indices", ())] != [*follow]:
        return config
    return {**config, "out_indices": [*made.out_indices]}


SEGMENTATION = TaskSpec(
    name="segmentation",
    tool="train_seg",
    config=SegmentationConfig,
    recipes=RECIPES,
    module="segmentation.task",
    trained="segmentation.trained",
    plan=_plan,
    augments=True,
    follow=SegmentationConfig.following,
    at_recipes_depth=_at_recipes_depth,
    classes=150,  # ADE20K
    least_batch=2,  # batch norm
    scores=(
        Scores(
            kind="segmentation",
            label="segmentation",
            metrics=(miou.MIOU, miou.MACC, miou.AACC),
            resampler=miou.resampler,
            class_score="iou",
        ),
    ),
)


def _probe(name: str, apart: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        tool="probe_dense",
        config=DenseProbeConfig,
        recipes={},
        scores=(
            Scores(
                kind=name,
                label="segmentation",
                apart=apart,
                metrics=(miou.MIOU, miou.MACC, miou.AACC),
                resampler=miou.resampler,
                class_score="iou",
            ),
        ),
    )


KNN_SEGMENTATION = _probe("knn_segmentation", "k-NN on patches")
LINEAR_SEGMENTATION = _probe("linear_segmentation", "linear on patches")


EXAMPLES = Scores(
    kind="in_context",
    label="by example",
    metrics=(foreground.FOREGROUND_IOU, foreground.BOX_IOU),
    resampler=foreground.resampler,
    class_score=foreground.FOREGROUND_IOU.name,
)


def _by_method(config: Config, _: Sequence[str]) -> tuple[Scores, str]:
    return EXAMPLES, f"{config['method']} from {'boxes' if config['prompt'] == 'box' else 'masks'}"


IN_CONTEXT = TaskSpec(
    name="in_context",
    tool="in_context",
    config=InContextConfig,
    recipes={},
    scores=(EXAMPLES,),
    scored_as=_by_method,
)
