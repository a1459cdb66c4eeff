"""Unlabelled images as BEiT and its tokenizer see them: one crop at two sizes, and the mask of the patches.

The crop is resized to the ViT's size (bicubic) and to the tokenizer's (Lanczos), from the same pixels of the file, as
in BEiT's public code (arXiv 2106.08254, appendix D; section 2.3 for the mask). Axis letters: C channels, N patches.
"""

import random
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2

from engine.augment import Augment
from engine.images.reading import ImageSource

S = TypeVar("S")
Sample = tuple[Tensor, Tensor, Tensor, str]  # image_CHW and pixel_CHW, uint8, mask_N, image id
Change = Callable[[np.ndarray], np.ndarray]  # of uint8 (H, W, 3)
Size = tuple[int, int]  # height, width in pixels
CROP_PCT = 224 / 256  # evaluation takes this share of the shorter side
ASPECTS = (3 / 4, 4 / 3)


class Images(Generic[S]):
    """Images, each as `view` makes it."""

    def __init__(
        self,
        images: ImageSource,
        view: Callable[[Image.Image], S],
        changed: Callable[[Image.Image, Change], S] | None = None,
        augment: Augment | None = None,
    ) -> None:
        """`changed` is `view` with a change of the pixels that it drew; it is taken where there is an `augment`, which
        is of training alone."""
        self.images, self.view, self.changed, self.augment = images, view, changed, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[S, str]:
        image, image_id = self.images.read(index), self.image_id(index)
        assert isinstance(image, Image.Image)  # the configuration refuses other than three channels
        if self.augment is None:
            return self.view(image), image_id
        assert self.changed is not None
        return self.changed(image, self.augment.of(image_id)), image_id

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return self.images.image_id(index)


class MaskedViews:
    """An image as (pixels for the ViT, pixels for the tokenizer, mask_N), drawn anew at every call."""

    def __init__(
        self,
        crop: Callable[[Image.Image], Image.Image],
        *,
        image_size: Size,
        token_size: Size,
        mask: Callable[[random.Random], Tensor],
    ) -> None:
        self.crop, self.mask = crop, mask
        self.image_size, self.token_size = image_size, token_size

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, its pixels for the tokenizer, and the mask of the patches."""
        return self._of(self.crop(image))

    def changed(self, image: Image.Image, change: Change) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same with a change of the crop, which has the pixels of the file and is resized afterwards."""
        return self._of(Image.fromarray(change(np.array(self.crop(image)))))

    def _of(self, crop: Image.Image) -> tuple[Tensor, Tensor, Tensor]:
        image_CHW = _pixels(crop, self.image_size, Image.Resampling.BICUBIC)
        pixel_CHW = _pixels(crop, self.token_size, Image.Resampling.LANCZOS)
        mask_hw = self.mask(random.Random(random.getrandbits(64)))
        return image_CHW, pixel_CHW, mask_hw.flatten()


class RandomCrop:
    """Colour jitter, flip, and a random part of the image, in the order of BEiT's code."""

    def __init__(self, *, scale: tuple[float, float], flip: bool, jitter: float) -> None:
        """`jitter` is the largest relative change of brightness, contrast and saturation; 0 changes none."""
        steps: list[Callable[[Image.Image], Image.Image]] = []
        if jitter:
            steps.append(v2.ColorJitter(jitter, jitter, jitter))
        if flip:
            steps.append(v2.RandomHorizontalFlip())
        self.steps, self.scale = steps, list(scale)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a random crop."""
        for step in self.steps:
            image = step(image)
        top, left, height, width = RandomResizedCrop.get_params(image, self.scale, list(ASPECTS))
        return image.crop((left, top, left + width, top + height))


class CentreCrop:
    """The centre of the image in the aspect of `size`, CROP_PCT of what fits."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the centre crop."""
        height, width = self.size
        scale = CROP_PCT * min(image.height / height, image.width / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.height - rows) // 2, (image.width - columns) // 2
        return image.crop((left, top, left + columns, top + rows))


def _pixels(image: Image.Image, size: Size, resampling: Image.Resampling) -> Tensor:
    """Return the image resized to `size`, uint8 (C, H, W)."""
    return v2.functional.pil_to_tensor(image.resize((size[1], size[0]), resampling))
