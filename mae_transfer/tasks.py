"""The one table of tasks: tools, planner, studies and exports know a task by its line here."""

from classification.spec import CLASSIFICATION, KNN, LINEAR_FEATURES
from detection.spec import DETECTION
from engine.spec import TaskTable
from pretraining.spec import BEIT, DVAE, MAE, MOCO_V3, SUPERVISED
from segmentation.spec import IN_CONTEXT, KNN_SEGMENTATION, LINEAR_SEGMENTATION, SEGMENTATION

TASKS: TaskTable = {
    spec.name: spec
    for spec in (
        MAE,
        BEIT,
        DVAE,
        MOCO_V3,
        SUPERVISED,
        CLASSIFICATION,
        DETECTION,
        SEGMENTATION,
        KNN,
        LINEAR_FEATURES,
        KNN_SEGMENTATION,
        LINEAR_SEGMENTATION,
        IN_CONTEXT,
    )
}
