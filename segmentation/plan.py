"""A segmentation recipe on fake tensors."""

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from backbones.weights.normalisation import Normalisation
from engine.memory.plan import Plannable
from segmentation.config import SegmentationConfig
from segmentation.model.losses import segmentor_losses
from segmentation.task import segmentation_model


def plannable(config: SegmentationConfig, *, num_classes: int) -> Plannable:
    """Return the segmentor and its losses on crops of the recipe's size."""
    model = segmentation_model(config, num_classes=num_classes, normalisation=Normalisation(), initialise=False)
    channels, size = config.backbone.in_chans, config.backbone.image_size

    def loss(images: int) -> Tensor:
        samples = [SegDataSample(gt_sem_seg=_label(size)) for _ in range(images)]
        losses = segmentor_losses(model.segmentor, torch.zeros(images, channels, *size), samples)
        return torch.stack([value.float() for value in losses.values()]).sum()

    return Plannable(model=model, run=config.run, loss=loss)


def _label(size: tuple[int, int]) -> PixelData:
    return PixelData(data=torch.zeros(1, *size, dtype=torch.long))
