"""Images that are all length, in every view of pre-training."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.weights.normalisation import IMAGENET
from engine.training.seeding import seeded
from pretraining.augment import training_view

SIZES = [(12, 2400), (2400, 12), (3, 1001), (1, 1), (1, 5000), (5000, 1), (40, 60)]  # height, width


def image(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flip", [False, True])
def test_a_fixed_crop_is_that_of_the_whole_image(size: tuple[int, int], flip: bool) -> None:
    """The resized image fits into memory at 28 pixels: 32 x 160,000."""
    steps = [v2.Resize([32], interpolation=v2.InterpolationMode.BICUBIC), v2.RandomCrop((28, 28))]
    last = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)]
    whole = v2.Compose([*steps, *([v2.RandomHorizontalFlip()] if flip else []), *last])
    view = training_view("fixed_crop", (28, 28), IMAGENET, scale=(0.2, 1.0), flip=flip)
    for seed in range(20):
        with seeded(seed):
            expected = whole(image(*size))
            after = torch.rand(1)
        with seeded(seed):
            assert torch.equal(view(image(*size)), expected)
            assert torch.equal(torch.rand(1), after)  # as many numbers are drawn


@pytest.mark.parametrize("kind", ["none", "fixed_crop", "random_crop", "color_jitter"])
@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1)])
def test_no_view_enlarges_the_whole(kind, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    resize = Image.Image.resize

    def counted(self: Image.Image, *args, **kwargs) -> Image.Image:
        resized = resize(self, *args, **kwargs)
        made.append(resized.width * resized.height)
        return resized

    monkeypatch.setattr(Image.Image, "resize", counted)
    given = training_view(kind, (224, 224), IMAGENET, scale=(0.2, 1.0), flip=True)(image(*size))
    assert given.shape == (3, 224, 224) and torch.isfinite(given).all()
    assert max(made) <= 64 * 256 * 256
