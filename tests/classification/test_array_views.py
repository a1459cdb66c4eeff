"""Views of images of other than three channels: by hand, and beside those of RGB."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.weights.normalisation import IMAGENET, Normalisation
from classification.config import Augmentation
from classification.data import eval_transform, train_transform
from engine.images.reading import read_rgb
from pretraining.augment import training_view

TWICE = Normalisation(IMAGENET.mean * 2, IMAGENET.std * 2)


def photograph(path: Path) -> tuple[Image.Image, np.ndarray]:
    """A smooth RGB image, and its channels twice as one of six."""
    rows, columns = np.mgrid[0:90, 0:120]
    waves = [np.sin(rows / 9 + k) * np.cos(columns / (7 + k)) for k in range(3)]
    level_HW3 = (127.5 + 120 * np.stack(waves, axis=2)).round().astype(np.uint8)
    Image.fromarray(level_HW3).save(path)
    share = level_HW3.astype(np.float32) / 255
    return read_rgb(path), np.concatenate([share, share], axis=2)


def test_an_image_of_the_models_size_is_normalised_alone() -> None:
    image = np.random.default_rng(0).random((32, 32, 2), np.float32)
    made = eval_transform((32, 32), 1.0, Normalisation((0.5, 0.25), (0.5, 0.1)))
    assert made.channels == 2
    expected = (image.transpose(2, 0, 1) - [[[0.5]], [[0.25]]]) / [[[0.5]], [[0.1]]]
    np.testing.assert_allclose(made(image).numpy(), expected, atol=1e-5)  # float32
    assert torch.equal(made.pixels(image), made(image))  # floats pass the model's own normalisation


def test_views_are_those_of_rgb(tmp_path: Path) -> None:
    rgb, six = photograph(tmp_path / "a.png")
    std = torch.tensor(IMAGENET.std).view(3, 1, 1)
    for of_rgb, of_six in (
        (eval_transform((64, 64), 0.875, IMAGENET), eval_transform((64, 64), 0.875, TWICE)),
        (eval_transform((48, 64), 0.875, IMAGENET), eval_transform((48, 64), 0.875, TWICE)),
        (train_transform((64, 64), Augmentation(), IMAGENET), train_transform((64, 64), Augmentation(), TWICE)),
        *(
            tuple(training_view(kind, (64, 64), n, scale=(0.2, 1.0), flip=True) for n in (IMAGENET, TWICE))
            for kind in ("none", "fixed_crop", "random_crop")
        ),
    ):
        for seed in range(3):
            torch.manual_seed(seed)
            theirs = of_rgb(rgb)
            torch.manual_seed(seed)
            ours = of_six(six)
            assert torch.equal(ours[:3], ours[3:])
            # the same crop and flip; Pillow rounds to bytes after each of its two passes, by half a level each
            assert float(((ours[:3] - theirs) * std * 255).abs().max()) < 1.5


def test_erasing_is_of_all_channels() -> None:
    view = train_transform((32, 32), Augmentation(crop_scale=(1.0, 1.0), erase=1.0), TWICE)
    torch.manual_seed(0)
    made = view.pixels(np.full((32, 32, 6), 0.5, np.float32))
    changed_CHW = made != made[:, :1, :1]
    assert changed_CHW.any() and torch.equal(changed_CHW.any(dim=0), changed_CHW.all(dim=0))


@pytest.mark.parametrize("shape", [(1, 5000, 4), (5000, 1, 4)])
def test_thin_images(shape: tuple[int, ...]) -> None:
    four = Normalisation((0.5,) * 4, (0.5,) * 4)
    image = np.random.default_rng(0).random(shape, np.float32)
    assert eval_transform((32, 32), 0.875, four)(image).shape == (4, 32, 32)
    for kind in ("fixed_crop", "random_crop"):
        assert training_view(kind, (32, 32), four, scale=(0.2, 1), flip=True)(image).shape == (4, 32, 32)
