"""Two views of an unlabelled image, as MoCo v3 sees them (arXiv 2104.02057, appendix A; BYOL's augmentation).

They differ in one thing: the first is always blurred, the second seldom, and solarised now and then.
"""

import random
from typing import Any

from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from backbones.normalise import Normalise, View
from backbones.weights.normalisation import Normalisation
from engine.augment import Augment
from engine.images.reading import ImageSource
from pretraining.moco_v3.config import Changes

Sample = tuple[Tensor, Tensor, str]  # pixels of the first and the second view (C, H, W), image id
JITTER = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue


class TwoViews:
    """Images, each as two random views."""

    def __init__(
        self, images: ImageSource, first: View, second: View, centre: View, augment: Augment | None = None
    ) -> None:
        """`augment` is of training alone, and of each view by itself."""
        self.images, self.first, self.second, self.centre, self.augment = images, first, second, centre, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images.read(index)
        image_id = self.image_id(index)
        if self.augment is None:
            return self.first.pixels(image), self.second.pixels(image), image_id
        change = self.augment.of(image_id)
        return self.first.changed(image, change), self.second.changed(image, change), image_id

    def view_of(self, index: int) -> Tensor:
        """The centre of an image, normalised, (C, H, W)."""
        return self.centre(self.images.read(index))

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return self.images.image_id(index)


def views(
    size: tuple[int, int],
    normalisation: Normalisation,
    *,
    changes: Changes,
    scale: tuple[float, float],
    blur: tuple[float, float],
) -> tuple[View, View]:
    """Return the first and the second view; `scale` is the share of the area, `blur` the radii in pixels.

    Views of `crop` have neither blur nor other colours, and are drawn alike.
    """

    def view(blurred: float, solarised: float) -> View:
        steps: list[Any] = [
            v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            Blur(blurred, blur),
            v2.RandomSolarize(threshold=128, p=solarised),
        ]
        crop = v2.RandomResizedCrop(size, scale=scale)
        changed = steps if changes == "byol" else []
        pixels = v2.Compose([crop, *changed, v2.RandomHorizontalFlip(), v2.PILToTensor()])
        return View(pixels, Normalise(normalisation, scaled=True))

    return view(1.0, 0.0), view(0.1, 0.2)


class Blur:
    """A Gaussian blur of random radius, with some probability."""

    def __init__(self, probability: float, radii: tuple[float, float]) -> None:
        """`radii` are the least and the largest, in pixels."""
        self.probability, self.radii = probability, radii

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image, blurred or as it is."""
        if random.random() >= self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.radii)))
