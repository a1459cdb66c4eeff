"""Training and validation views of an unlabelled image (MAE, table 1e): PIL image -> normalised (C, H, W)."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from backbones.checkpoint import Normalisation
from classification.config import Augmentation
from classification.data import eval_transform, train_transform

Views = Literal["none", "fixed_crop", "random_crop", "color_jitter"]
View = Callable[[Image.Image], Tensor]
CROP_SHARE = 224 / 256  # a crop of fixed scale takes this share of the shorter side
JITTER = 0.4  # brightness, contrast and saturation; the paper does not state its own


def validation_view(size: tuple[int, int], normalisation: Normalisation) -> View:
    """Return the centre crop."""
    return eval_transform(size, CROP_SHARE, normalisation)


def training_view(
    kind: Views, size: tuple[int, int], normalisation: Normalisation, *, scale: tuple[float, float], flip: bool
) -> View:
    """Return the view of a kind; `scale` is of the kinds of random scale, `flip` of all but `none`."""
    if kind == "none":
        return validation_view(size, normalisation)
    if kind == "random_crop":
        return train_transform(size, Augmentation(crop_scale=scale, flip=flip), normalisation)
    bicubic = v2.InterpolationMode.BICUBIC
    steps: list[Any]
    if kind == "fixed_crop":
        resized = [math.floor(side / CROP_SHARE) for side in size]
        shorter = resized[:1] if size[0] == size[1] else resized
        steps = [v2.Resize(shorter, interpolation=bicubic), v2.RandomCrop(size)]
    else:
        steps = [v2.RandomResizedCrop(size, scale=scale, interpolation=bicubic), v2.ColorJitter(JITTER, JITTER, JITTER)]
    return v2.Compose([*steps, *([v2.RandomHorizontalFlip()] if flip else []), *normalised(normalisation)])


def normalised(normalisation: Normalisation) -> list[Any]:
    """Return the last steps of a view: a PIL image to float32 (C, H, W) of zero mean and unit deviation."""
    return [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(normalisation.mean), list(normalisation.std)),
    ]
