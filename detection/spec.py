"""What tools, planner, studies and tables know of detection."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from detection.config import DetectionConfig
from detection.recipes.all import RECIPES
from engine.spec import Config, Scores, TaskSpec
from metrics import coco_ap
from metrics.metric import Metric

if TYPE_CHECKING:
    from engine.memory.plan import Plannable


def _ap(*names: str) -> tuple[Metric, ...]:
    return tuple(map(coco_ap.ap, names))


COCO = Scores(
    kind="detection",
    label="detection",
    metrics=_ap("box_ap", "box_ap50", "mask_ap", "mask_ap50"),
    resampler=coco_ap.resampler,
    class_score="box_ap",
)
LVIS = Scores(
    kind="lvis",
    label="detection, LVIS",
    metrics=_ap("box_ap", "mask_ap", "mask_ap_rare", "mask_ap_common", "mask_ap_frequent"),
    resampler=coco_ap.resampler,
    class_score="box_ap",
)
LVIS_ALONE = "box_ar300"  # LVIS looks at 300 detections of an image, COCO at 100


def _plan(config: DetectionConfig, *, classes: int, masks: bool) -> Callable[[], "Plannable"]:
    from detection.plan import plannable

    return lambda: plannable(config, num_classes=classes, masks=masks)


def _scored_as(config: Config, metrics: Sequence[str]) -> tuple[Scores, str]:
    return (LVIS if LVIS_ALONE in metrics else COCO), ""


DETECTION = TaskSpec(
    name="detection",
    tool="train_det",
    config=DetectionConfig,
    recipes=RECIPES,
    module="detection.task",
    trained="detection.trained",
    plan=_plan,
    classes=80,  # COCO
    scores=(COCO, LVIS),
    scored_as=_scored_as,
    stated=("masks",),
    augments=True,
)
