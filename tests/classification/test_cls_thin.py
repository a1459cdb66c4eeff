"""Images that are all length, in training and evaluation."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import eval_transform, train_transform
from engine.training.seeding import seeded

SIZES = [(12, 2400), (2400, 12), (1, 1), (1, 5000), (5000, 1), (1, 65_000)]  # height, width


def image(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", ["pillow", "tensor"])
def test_they_are_trained_on(size: tuple[int, int], resize: str) -> None:
    augment = Augmentation(randaugment="rand-m9-mstd0.5-inc1", erase=0.25, resize=resize)  # type: ignore[arg-type]
    for seed in range(3):
        with seeded(seed):
            given = train_transform((32, 32), augment, IMAGENET)(image(*size))
        assert given.shape == (3, 32, 32) and torch.isfinite(given).all()


@pytest.mark.parametrize("size", SIZES)
def test_they_are_evaluated(size: tuple[int, int]) -> None:
    given = eval_transform((224, 224), 0.875, IMAGENET)(image(*size))
    assert given.shape == (3, 224, 224) and torch.isfinite(given).all()


def test_the_centre_is_that_of_the_whole_image() -> None:
    """Also of an odd length; the resized length is rounded, so that the crop may lie a fraction of a pixel off."""
    plain = v2.Compose(
        [v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()]
    )
    for height, width in [(12, 2400), (16, 1601), (1600, 16)]:
        wide = image(height, width)
        expected = plain(wide).float()
        mean, std = (torch.tensor(v).view(-1, 1, 1) * 255 for v in (IMAGENET.mean, IMAGENET.std))
        given = eval_transform((224, 224), 0.875, IMAGENET)(wide) * std + mean
        assert (given - expected).abs().mean() < 1.5
