"""What tools, planner, studies and tables know of classification and of its probes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from classification.config import ClassificationConfig, ProbeConfig
from classification.recipes import RECIPES
from engine.spec import RESULT, Config, Scores, TaskSpec
from metrics import accuracy

if TYPE_CHECKING:
    from engine.memory.plan import Plannable

SCORES = Scores(kind="classification", label="classification", metrics=(accuracy.TOP1,), resampler=accuracy.resampler)


def _plan(config: ClassificationConfig, *, classes: int, masks: bool) -> Callable[[], "Plannable"]:
    from classification.plan import plannable

    return lambda: plannable(config, num_classes=classes)


def _scored_as(config: Config, metrics: Sequence[str]) -> tuple[Scores, str]:
    """Each protocol has a line of its own."""
    protocol = config.get("protocol", "finetune")
    if protocol == "finetune":
        return SCORES, ""
    blocks = config.get("tuned_blocks", ClassificationConfig.tuned_blocks)
    return SCORES, f"{protocol} {blocks:g}" if protocol == "partial" else str(protocol)


CLASSIFICATION = TaskSpec(
    name="classification",
    tool="train_cls",
    config=ClassificationConfig,
    recipes=RECIPES,
    module="classification.task",
    trained="classification.trained",
    plan=_plan,
    classes=1000,  # ImageNet-1K
    scores=(SCORES,),
    scored_as=_scored_as,
    augments=True,
)


def _at_recipes_depth(config: Config, _: str) -> Config:
    """Call the last block so, whatever its number; the outcomes of other blocks keep theirs."""
    leading, depth = config.get(RESULT), config.get("backbone", {}).get("depth")
    last = f"depth{depth:02d}_" if isinstance(depth, int) else ""
    if not last or not isinstance(leading, str) or not leading.startswith(last):
        return config
    return {**config, RESULT: f"last_{leading.removeprefix(last)}"}


def _probe(name: str, apart: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        tool="probe",
        config=ProbeConfig,
        at_recipes_depth=_at_recipes_depth,
        recipes={},
        scores=(
            Scores(
                kind=name,
                label="classification",
                apart=apart,
                metrics=(accuracy.TOP1,),
                resampler=accuracy.resampler,
            ),
        ),
    )


KNN, LINEAR_FEATURES = _probe("knn", "k-NN"), _probe("linear_features", "linear on features")
