"""From a pre-training recipe to its task."""

from pathlib import Path

from classification.config import ClassificationConfig
from classification.task import ClassificationTask
from engine.task import InitialWeights
from pretraining import supervised, task
from pretraining.config import MAEConfig
from pretraining.task import MAETask


def build_task(
    config: MAEConfig | ClassificationConfig, *, data: Path, init: InitialWeights | None
) -> MAETask | ClassificationTask:
    """Return MAE or the supervised baseline, whichever the configuration is of."""
    if isinstance(config, MAEConfig):
        return task.build_task(config, data=data, init=init)
    return supervised.build_task(config, data=data, init=init)
