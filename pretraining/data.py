"""Unlabelled images for MAE as views with a mask's noise."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from backbones.normalise import View
from engine.augment import Augment
from engine.images.reading import ImageSource, Picture

Sample = tuple[Tensor, Tensor, str]  # pixels_RCHW, noise_RN, image id; R views


class MaskedImages:
    """Images with one number per patch; the mask covers all but the lowest."""

    def __init__(
        self,
        images: ImageSource,
        view: View,
        *,
        noise: Callable[[], Tensor],
        repeats: int = 1,
        augment: Augment | None = None,
    ) -> None:
        """`noise` draws (N,) and an image gives `repeats` views; `augment` is of training alone."""
        self.images, self.view, self.noise, self.repeats, self.augment = images, view, noise, repeats, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images.read(index, least_area=self.view.least_area)
        image_id = self.image_id(index)
        pixels: Callable[[Picture], Tensor] = self.view.pixels
        if self.augment is not None:
            pixels = partial(self.view.changed, change=self.augment.of(image_id))
        views = [(pixels(image), self.noise()) for _ in range(self.repeats)]
        return torch.stack([v for v, _ in views]), torch.stack([n for _, n in views]), image_id

    def view_of(self, index: int) -> Tensor:
        """One view of an image, normalised, (C, H, W)."""
        return self.view(self.images.read(index))

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return self.images.image_id(index)
