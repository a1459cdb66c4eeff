"""Views of images of other than three channels: random resized crops, flips, resizing, in float32.

The steps are those of RGB (`classification.data`, `pretraining.augment`), by torchvision on tensors in the place of
Pillow, which knows no such images. What changes colours has no counterpart. A view is float32, normalised on the host.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from backbones.normalise import Normalise, View
from backbones.weights.normalisation import Normalisation

MOST_SIDES = 64  # of a long image, in shorter sides, that is looked at when it is resized whole
BICUBIC = v2.InterpolationMode.BICUBIC


def random_crop(
    size: tuple[int, int],
    normalisation: Normalisation,
    *,
    scale: tuple[float, float],
    flip: bool,
    erase: Callable[[Tensor], Tensor] | None = None,
) -> View:
    """Return crops of a random place and share of the area, resized; `erase` is of normalised pixels."""
    crop = v2.RandomResizedCrop(size, scale=scale, interpolation=BICUBIC, antialias=True)
    return _view([crop], normalisation, flip=flip, erase=erase)


def fixed_crop(size: tuple[int, int], normalisation: Normalisation, *, crop_pct: float, flip: bool) -> View:
    """Return crops of a random place of the image resized as for evaluation."""
    steps = [NearCentre(), v2.Resize(resized_sides(size, crop_pct), BICUBIC, antialias=True), v2.RandomCrop(size)]
    return _view(steps, normalisation, flip=flip)


def centre_crop(size: tuple[int, int], normalisation: Normalisation, *, crop_pct: float) -> View:
    """Return the centre of the image resized to size / crop_pct."""
    steps = [NearCentre(), v2.Resize(resized_sides(size, crop_pct), BICUBIC, antialias=True), v2.CenterCrop(size)]
    return _view(steps, normalisation)


def resized_sides(size: tuple[int, int], crop_pct: float) -> list[int]:
    """Return the shorter side before a square crop, both sides before another one."""
    sides = [math.floor(side / crop_pct) for side in size]  # down, as MAE's code and timm do
    return sides[:1] if size[0] == size[1] else sides


def _view(
    steps: Sequence[Any],
    normalisation: Normalisation,
    *,
    flip: bool = False,
    erase: Callable[[Tensor], Tensor] | None = None,
) -> View:
    flips = [v2.RandomHorizontalFlip()] if flip else []
    last = [v2.Normalize(list(normalisation.mean), list(normalisation.std)), *([] if erase is None else [erase])]
    return View(v2.Compose([AsTensor(), *steps, *flips]), Normalise(normalisation), finish=v2.Compose(last))


class AsTensor:
    """float32 (H, W, C) as a tensor (C, H, W)."""

    def __call__(self, image_HWC: np.ndarray) -> Tensor:
        """Return the tensor."""
        return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))


class NearCentre:
    """Cuts from an image that is all length what is farther from its centre than MOST_SIDES of its shorter sides.

    Resized whole, an image of 1 x 5,000 pixels would take a gigabyte.
    """

    def __call__(self, image_CHW: Tensor) -> Tensor:
        """Return the image, or its middle."""
        height, width = image_CHW.shape[1:]
        most = MOST_SIDES * min(height, width)
        top, left = (max(0, (side - most) // 2) for side in (height, width))
        return image_CHW[:, top : height - top, left : width - left]
