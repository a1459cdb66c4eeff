"""A segmentation recipe on fake tensors."""

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from backbones.weights.normalisation import Normalisation
from engine.memory.plan import Plannable
from segmentation.config import SegmentationConfig
from segmentation.model.losses import segmentor_losses
from segmentation.model.mask_losses import Target, in_order
from segmentation.task import SegmentationModel, segmentation_model

MASKS = 11  # in an image of EoMT: ADE20K's have 10.5 classes on average (Zhou et al., CVPR 2017, abstract)


def plannable(config: SegmentationConfig, *, num_classes: int) -> Plannable:
    """Return the segmentor and its losses on crops of the recipe's size."""
    model = segmentation_model(config, num_classes=num_classes, normalisation=Normalisation(), initialise=False)
    channels, size = config.backbone.in_chans, config.backbone.image_size
    eomt, masks = config.head.kind == "eomt", min(MASKS, num_classes)

    def loss(images: int) -> Tensor:
        if eomt:
            return _masks_loss(model, torch.zeros(images, channels, *size), masks)
        samples = [SegDataSample(gt_sem_seg=_label(size)) for _ in range(images)]
        losses = segmentor_losses(model.segmentor, torch.zeros(images, channels, *size), samples)
        return torch.stack([value.float() for value in losses.values()]).sum()

    simplified = f"an image has {masks} classes, and the first queries are matched with them" if eomt else ""
    return Plannable(model=model, run=config.run, loss=loss, simplified=simplified)


def _masks_loss(model: SegmentationModel, image_BCHW: Tensor, masks: int) -> Tensor:
    """Return EoMT's loss where fake tensors have no values to match queries by."""
    target = Target(torch.zeros(masks, dtype=torch.long), torch.zeros(masks, *image_BCHW.shape[2:]))
    head = model.segmentor.decode_head
    losses = head.losses(model.backbone(image_BCHW), [target] * image_BCHW.shape[0], in_order)
    return torch.stack(list(losses.values())).sum()


def _label(size: tuple[int, int]) -> PixelData:
    return PixelData(data=torch.zeros(1, *size, dtype=torch.long))
