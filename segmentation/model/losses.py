"""The losses of a segmentor's heads, equal to mmseg's, without what a training step has no use for.

mmseg enlarges the coarse maps before it fuses them, and computes the accuracy of every training batch by a top-1 over
all classes of every pixel. Here the maps are fused first (`upsampled`), and accuracy is left to evaluation.

Axis letters: B batch, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segmentation.host import BaseDecodeHead, EncoderDecoder
from segmentation.model.eomt import EoMTHead
from segmentation.model.upsampled import decode_logits


def segmentor_losses(segmentor: EncoderDecoder, image_BCHW: Tensor, samples: Sequence[Any]) -> dict[str, Tensor]:
    """Return the losses of the decode and auxiliary heads by mmseg's names, as `segmentor.loss` gives them."""
    maps = segmentor.backbone(image_BCHW)
    if isinstance(segmentor.decode_head, EoMTHead):
        losses = segmentor.decode_head.loss(maps, samples, None)
        return {f"decode.{name}": value for name, value in losses.items()}
    label_BHW = torch.cat([sample.gt_sem_seg.data for sample in samples])
    losses = _loss("decode", segmentor.decode_head, decode_logits(segmentor, maps), label_BHW)
    if segmentor.with_auxiliary_head:
        head = segmentor.auxiliary_head  # on the third map, which the pyramid leaves as it is
        losses |= _loss("aux", head, head(maps), label_BHW)
    return losses


def _loss(name: str, head: BaseDecodeHead, coarse_BChw: Tensor, label_BHW: Tensor) -> dict[str, Tensor]:
    logits_BCHW = F.interpolate(coarse_BChw, size=label_BHW.shape[1:], mode="bilinear")
    loss = head.loss_decode
    return {f"{name}.{loss.loss_name}": loss(logits_BCHW, label_BHW, ignore_index=head.ignore_index)}
