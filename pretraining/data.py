"""Unlabelled images for MAE as views with a mask's noise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from backbones.normalise import View
from engine.augment import Augment
from engine.images.encoded import Encoded, encoded, open_encoded
from engine.images.jpeg import Undecoded, picture_of
from engine.images.reading import ImageSource

Sample = tuple[Tensor | Encoded, Tensor, str]  # pixels_RCHW, noise_RN, image id; R views


class MaskedImages:
    """Images with one number per patch; the mask covers all but the lowest.

    Where the view leaves decoding to the device samples have the file in place of the pixels.
    """

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
        image_id = self.image_id(index)
        if (place := self.view.place) is not None:
            opened = open_encoded(self.images.file(index))
            placed = [(place(*opened.size), self.noise()) for _ in range(self.repeats)]
            return encoded(opened, [p for p, _ in placed]), torch.stack([n for _, n in placed]), image_id
        image = self._picture(index)
        pixels: Callable[[Any], Tensor] = self.view.pixels
        if self.augment is not None:
            pixels = partial(self.view.changed, change=self.augment.of(image_id))
        views = [(pixels(image), self.noise()) for _ in range(self.repeats)]
        return torch.stack([v for v, _ in views]), torch.stack([n for _, n in views]), image_id

    @property
    def decoded_on_device(self) -> bool:
        """Whether samples have files, which the device decodes."""
        return self.view.place is not None

    def _picture(self, index: int) -> Any:
        """Return the image, or its file, as the view takes it."""
        least = self.view.least_area
        if self.view.takes_files:
            return Undecoded(self.images.file(index))
        if self.view.takes_tensors:
            return picture_of(self.images.file(index), least_area=least)
        return self.images.read(index, least_area=least)

    def view_of(self, index: int) -> Tensor:
        """One view of an image, normalised, (C, H, W)."""
        return self.view(self.images.read(index))

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return self.images.image_id(index)
