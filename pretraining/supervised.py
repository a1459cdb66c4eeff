"""The supervised baseline: the same ViT, class token and final norm included, trained from labels.

Classification from random weights under its usual augmentation (MAE, appendix A.2). Unlike fine-tuning it keeps the
ViT's final norm and fixed positions, so that its checkpoint holds the same parameters as MAE's.
"""

from pathlib import Path

from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from classification.config import ClassificationConfig
from classification.task import ClassificationTask, assemble


def build_task(config: ClassificationConfig, *, data: Path, init: InitialWeights | None) -> ClassificationTask:
    """Return supervised pre-training on `data/train`, from random weights or a backbone checkpoint."""
    backbone = ViT(config.backbone, drop_path=config.drop_path, train_position=False)
    return assemble(config, backbone, data=data, init=init, pretraining=True)
