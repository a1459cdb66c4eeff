"""Pixels as a ViT takes them: a model is given the bytes of images, and normalises them where it is.

Bytes are a quarter of what floats are on their way to a device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.weights.normalisation import Normalisation

Decoded = Image.Image | Tensor
"""A decoded image: Pillow's, or uint8 (C, H, W)."""


class Place(NamedTuple):
    """What a view shows of an image, in pixels of the whole image."""

    left: int
    top: int
    width: int
    height: int
    flipped: bool
    """Horizontally."""
    size: tuple[int, int]
    """Height and width of what it is resized to."""


class Normalise(nn.Module):
    """uint8 (..., C, H, W) to float32 of zero mean and unit variance; floats are so already."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation, *, scaled: bool = False) -> None:
        """`scaled` divides pixels by 255 first, as torchvision does; else the constants are multiplied by it.

        The two differ in the last bit.
        """
        super().__init__()
        self.scaled = scaled
        unit = 1 if scaled else 255
        for name, values in (("mean", normalisation.mean), ("std", normalisation.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1) * unit, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image on its device, which must be the module's for bytes."""
        if image.is_floating_point():
            return image
        pixel = image.float()
        if self.scaled:
            pixel.mul_(1 / 255)
        return pixel.sub_(self.mean).div_(self.std)  # in place: a third of the time


class View:
    """What a model is given of an image: `pixels` draws it on the host, `normalise` follows where the model is.

    An image is RGB, or of other than three channels float32 (H, W, C).
    """

    def __init__(
        self,
        pixels: Callable[[Any], Tensor],
        normalise: Normalise,
        *,
        finish: Callable[[Tensor], Tensor] | None = None,
        least_area: float | None = None,
        takes_tensors: bool = False,
        takes_files: bool = False,
        place: Callable[[int, int], Place] | None = None,
    ) -> None:
        """`pixels` returns uint8 (C, H, W), of which `finish` makes float32, normalised, where the last steps are of
        normalised images, as always of other than three channels.

        It may be given an image that was decoded at a fraction of its size and has `least_area` pixels or more, and
        one as a tensor with `takes_tensors`. With `takes_files` it is given a file that is not decoded yet
        (engine.images.jpeg.Undecoded). With `place` images are decoded where the model is: it draws what a view
        shows of an image of a width and height, with the draws of `pixels`.
        """
        self._drawn, self._finish = pixels, finish
        self.pixels = pixels if finish is None else self._finished
        self.normalise, self.least_area, self.place = normalise, least_area, place
        self.takes_tensors, self.takes_files = takes_tensors, takes_files

    @property
    def channels(self) -> int:
        """Of the images that it is of."""
        return len(self.normalise.mean)

    def changed(self, image: Any, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """Return the pixels with a change of what was drawn, uint8 (H, W, C), before the last steps."""
        drawn_HWC = np.array(self._drawn(image).permute(1, 2, 0).numpy(), order="C")
        pixels = torch.from_numpy(np.array(change(drawn_HWC).transpose(2, 0, 1), order="C"))
        return pixels if self._finish is None else self._finish(pixels)

    def _finished(self, image: Any) -> Tensor:
        assert self._finish is not None
        return self._finish(self._drawn(image))

    def __call__(self, image: Any) -> Tensor:
        """Return the image normalised, float32 (C, H, W)."""
        normalised: Tensor = self.normalise(self.pixels(image))
        return normalised
