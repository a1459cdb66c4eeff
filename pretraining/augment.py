"""Training and validation views of an unlabelled image (MAE, table 1e)."""

import math
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.normalise import Normalise, View
from backbones.weights.normalisation import Normalisation
from classification import array_views
from classification.config import Augmentation, Decode, Resize
from classification.data import MOST_SIDES, eval_transform, train_transform
from engine.images.arrays import RGB
from pretraining.mae.config import Views

CROP_PCT = 224 / 256  # a crop of fixed scale takes this share of the shorter side
JITTER = 0.4  # brightness, contrast and saturation; the paper does not state its own


def validation_view(size: tuple[int, int], normalisation: Normalisation) -> View:
    """Return the centre crop."""
    return eval_transform(size, CROP_PCT, normalisation)


def training_view(
    kind: Views,
    size: tuple[int, int],
    normalisation: Normalisation,
    *,
    scale: tuple[float, float],
    flip: bool,
    decode: Decode = "full",
    resize: Resize = "pillow",
) -> View:
    """Return the view of a kind; `scale` is of the kinds of random scale, `flip` of all but `none`.

    `decode` and `resize` are of `random_crop`. Images have as many channels as `normalisation`; of other than three no
    colour is changed.
    """
    if kind == "none":
        return validation_view(size, normalisation)
    if kind == "random_crop":
        augment = Augmentation(crop_scale=scale, flip=flip, decode=decode, resize=resize)
        return train_transform(size, augment, normalisation)
    if kind == "fixed_crop" and len(normalisation.mean) != RGB:
        return array_views.fixed_crop(size, normalisation, crop_pct=CROP_PCT, flip=flip)
    bicubic = v2.InterpolationMode.BICUBIC
    steps: list[Any]
    if kind == "fixed_crop":
        resized = [math.floor(side / CROP_PCT) for side in size]
        shorter = resized[:1] if size[0] == size[1] else resized
        steps = [_FixedCrop(shorter, size)]
    else:
        steps = [v2.RandomResizedCrop(size, scale=scale, interpolation=bicubic), v2.ColorJitter(JITTER, JITTER, JITTER)]
    normalise = Normalise(normalisation, scaled=True)
    # float32: the validation view of these kinds differs from them in the last bit, and a model normalises in one way
    flips = [v2.RandomHorizontalFlip()] if flip else []
    return View(v2.Compose([*steps, *flips, v2.PILToTensor()]), normalise, finish=normalise)


class _FixedCrop:
    """v2.Resize (bicubic) and v2.RandomCrop; of an image that is all length only what the crop shows is resized.

    Resized whole, an image of 1 x 5,000 pixels would take a gigabyte.
    """

    def __init__(self, shorter: list[int], size: tuple[int, int]) -> None:
        """`shorter` is v2.Resize's size, `size` height and width of the crop in pixels."""
        self.resize = v2.Resize(shorter, interpolation=v2.InterpolationMode.BICUBIC)
        self.crop = v2.RandomCrop(size)
        self.shorter = shorter

    def __call__(self, image: Image.Image) -> Image.Image:
        if len(self.shorter) > 1 or not is_long(image):
            cropped: Image.Image = self.crop(self.resize(image))
            return cropped
        height, width = resized_size(image, self.shorter[0])
        place = self.crop.make_params([torch.empty(3, height, width, device="meta")])  # draws as it does of an image
        box = (place["left"], place["top"], place["left"] + place["width"], place["top"] + place["height"])
        return resized_part(image, (height, width), box)


def is_long(image: Image.Image) -> bool:
    """Whether an image is longer than MOST_SIDES of its shorter sides, so that it is not to be enlarged whole."""
    return max(image.size) > MOST_SIDES * min(image.size)


def resized_size(image: Image.Image, shorter: int) -> tuple[int, int]:
    """Return height and width of the image once its shorter side is resized to `shorter`, as v2.Resize rounds them."""
    resized = v2.functional.resize(torch.empty(3, image.height, image.width, device="meta"), [shorter])
    return resized.shape[1], resized.shape[2]


def resized_part(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Return the part `box` (left, top, right, bottom) of the image resized (bicubic) to `size` (height, width).

    Only the pixels that it is made of are resized. The weights of Pillow's filter are equal to some 1e-6, so that a
    level of 255 may be rounded otherwise; in tests none is.
    """
    factors = image.width / size[1], image.height / size[0]
    place = [side * factor for side, factor in zip(box, (*factors, *factors), strict=True)]
    margin = [math.ceil(2 * max(factor, 1)) + 1 for factor in factors]  # the cubic reaches two pixels of the coarser
    left, top = (max(0, math.floor(place[axis]) - margin[axis]) for axis in (0, 1))
    right, bottom = (min(image.size[axis], math.ceil(place[2 + axis]) + margin[axis]) for axis in (0, 1))
    part = image.crop((left, top, right, bottom))
    within = (place[0] - left, place[1] - top, min(place[2] - left, part.width), min(place[3] - top, part.height))
    return part.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC, box=within)
