"""Options of a toy task: the mean depth of an image, one number in metres."""

from dataclasses import dataclass
from typing import Annotated

from backbones.config import ViTConfig
from engine.config import BASIC, RunConfig


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """A ViT and a linear layer on the mean of its tokens."""

    backbone: ViTConfig
    """Architecture."""
    run: RunConfig
    """Length, batch, optimiser, schedule."""
    loss_scale: Annotated[float, BASIC] = 1.0
    """What the squared error is multiplied by."""
