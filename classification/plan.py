"""A classification recipe on fake tensors."""

import torch
from torch import Tensor

from classification.config import ClassificationConfig
from classification.task import classifier, freeze, vit_of
from engine.memory.plan import Plannable


def plannable(config: ClassificationConfig, *, num_classes: int) -> Plannable:
    """Return the classifier and its loss on images of the recipe's size."""
    backbone = vit_of(config)
    freeze(config, backbone)
    model = classifier(config, backbone, num_classes=num_classes)
    mixed = model.mixup is not None
    model.mixup = None  # draws numbers; a mixed target costs as much as a smoothed one, to some bytes per class

    def loss(images: int) -> Tensor:
        image = torch.zeros(images, config.backbone.in_chans, *config.backbone.image_size)
        return sum_of(model((image, torch.zeros(images, dtype=torch.long), [])))

    return Plannable(
        model=model, run=config.run, loss=loss, simplified="images are not mixed (mixup, cutmix)" if mixed else ""
    )


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """Return the total loss."""
    return torch.stack(list(losses.values())).sum()
