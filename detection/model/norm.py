"""Norms after the convolutions of FPN and heads."""

from collections.abc import Callable
from functools import partial

import torch
from detectron2.layers import NaiveSyncBatchNorm
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from detection.config import Norm


class BatchNorm(NaiveSyncBatchNorm):
    """Batch norm over the images or boxes of all processes.

    PyTorch's SyncBatchNorm needs CUDA. Departure from detectron2: statistics are in float32 in any precision.
    """

    def __init__(self, channels: int) -> None:
        """Weigh each process by its number of images or boxes, which may be none."""
        super().__init__(channels, stats_mode="N")

    def forward(self, input: Tensor) -> Tensor:
        """Return the input normalised, in its precision."""
        with torch.autocast(input.device.type, enabled=False):
            normalised: Tensor = super().forward(input.float())
        return normalised.to(input.dtype)


# detectron2's "LN" takes its statistics in the input's precision, this one in float32; same parameters
NORMS: dict[Norm, Callable[[int], nn.Module]] = {"layer": partial(LayerNorm2d, eps=1e-6), "batch": BatchNorm}
