"""A finished classification run as a classifier of other images."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from classification.data import eval_transform
from classification.robustness import Known
from classification.spec import CLASSIFICATION
from classification.task import ClassificationTask
from engine.config import Workers
from engine.runs.reopen import Asked, rebuild
from engine.training.resume import load_model


def known_by(run: Path, asked: Asked, *, resized: bool, workers: Workers, say: Callable[[str], None]) -> Known:
    """Return the model of the last checkpoint of a run with its evaluation transform.

    `resized` False crops the centre alone; `workers` processes read the images; `say` is told what is read as the
    record says. Raises as `engine.runs.reopen.rebuild`.
    """
    rebuilt = rebuild(run, {CLASSIFICATION.name: CLASSIFICATION}, asked, say=say)
    task = rebuilt.task
    assert isinstance(task, ClassificationTask)  # the only one that it builds
    fabric = rebuilt.fabric()
    load_model(rebuilt.checkpoint, task.model)
    model = task.model.to(fabric.device).eval()

    def logits(image_BCHW: Tensor) -> Tensor:
        with fabric.autocast():
            return model.logits(image_BCHW)

    config = task.config
    crop_pct = config.crop_pct if resized else 1.0
    return Known(
        logits=logits,
        classes=task.classes,
        view=eval_transform(config.backbone.image_size, crop_pct, task.normalisation),
        fabric=fabric,
        batch_size=rebuilt.run.eval_batch_size,
        workers=workers,
    )
