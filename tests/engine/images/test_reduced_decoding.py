"""JPEGs decoded at a fraction of their sides for training crops: how large they stay, and how near the pixels are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import LabelledImages, least_area, open_split, train_transform
from engine.images.reading import open_images, read_rgb
from engine.training.seeding import seeded
from pretraining.data import MaskedImages
from pretraining.mae.config import MAEConfig
from pretraining.recipes import tiny


def photograph(path: Path, width: int, height: int) -> Path:
    """Write smooth ramps and waves, as a photograph has them, without the noise that no two decoders agree on."""
    x, y = np.meshgrid(np.linspace(0, 12, width), np.linspace(0, 9, height))
    levels = np.stack([127 + 90 * np.sin(x + y), 127 + 90 * np.cos(x - y), 20 * x], axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return path


@pytest.mark.parametrize(
    ("least", "size"),
    [
        (None, (1600, 1200)),
        (1600 * 1200, (1600, 1200)),
        (1600 * 1200 / 4 + 1, (1600, 1200)),
        (1600 * 1200 / 4, (800, 600)),
        (1600 * 1200 / 16, (400, 300)),
        (1, (200, 150)),  # an eighth is the least
    ],
)
def test_a_jpeg_keeps_the_area_that_is_asked_for(least: float | None, size: tuple[int, int], tmp_path: Path) -> None:
    assert read_rgb(photograph(tmp_path / "a.jpg", 1600, 1200), least_area=least).size == size


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_before_is_that_of_the_upright_image(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (801, 400)).save(tmp_path / "a.jpg", exif=exif)
    made = read_rgb(tmp_path / "a.jpg", least_area=1)
    upright = orientation != 6
    assert (made.size, made.info["whole"]) == (((101, 50), (801, 400)) if upright else ((50, 101), (400, 801)))
    assert "whole" not in read_rgb(tmp_path / "a.jpg").info


@pytest.mark.parametrize("resize", ["pillow", "tensor"])
def test_an_image_that_stays_whole_gives_the_same_pixels(resize: Any, tmp_path: Path) -> None:
    image = read_rgb(photograph(tmp_path / "a.jpg", 200, 150), least_area=least_area((64, 64), 0.2))
    made = []
    for decode in ("full", "reduced"):
        augment = Augmentation(crop_scale=(0.2, 1.0), decode=decode, resize=resize)  # type: ignore[arg-type]
        with seeded(3):
            made.append(train_transform((64, 64), augment, IMAGENET).pixels(image))
    assert torch.equal(*made)


def test_other_files_are_read_whole(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png", least_area=1).size == (400, 300)


def test_a_tiny_jpeg_is_never_reduced_to_nothing(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 300), (7, 5)):
        Image.new("RGB", size).save(tmp_path / "a.jpg")
        assert min(read_rgb(tmp_path / "a.jpg", least_area=0.01).size) >= 1


def test_the_least_area_by_hand() -> None:
    # a fifth of the area at an aspect of 3/4: sqrt(0.2 * 0.75 * A) = 224 pixels wide
    assert least_area((224, 224), 0.2) == pytest.approx(224**2 / 0.15)


@settings(max_examples=30, deadline=None)
@given(st.integers(60, 900), st.integers(60, 900), st.integers(0, 2**31), st.floats(0.1, 1.0))
def test_no_crop_of_a_reduced_image_is_smaller_than_the_model_takes(
    width: int, height: int, seed: int, scale: float
) -> None:
    least = least_area((32, 32), scale)
    factor = next((k for k in (8, 4, 2) if width * height >= least * k**2), 1)
    view = train_transform((32, 32), Augmentation(crop_scale=(scale, scale), flip=False, decode="reduced"), IMAGENET)
    assert view.least_area == least
    crop = view.pixels.transforms[0]  # type: ignore[attr-defined]
    reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    reduced.info["whole"] = (width, height)
    with seeded(seed):
        place = crop.make_params([reduced])
    fallback = place["width"] == width or place["height"] == height  # of an image that is too long
    if factor > 1 and not fallback:
        assert min(place["width"], place["height"]) / factor >= 32 - 1  # sides are rounded


@pytest.mark.parametrize("resize", ["pillow", "tensor"])
def test_pixels_are_near_those_of_the_whole(resize: Any, tmp_path: Path) -> None:
    photograph(tmp_path / "train/a/0.jpg", 1600, 1200)
    photograph(tmp_path / "train/b/0.jpg", 1200, 1600)
    made = []
    for decode in ("full", "reduced"):
        augment = Augmentation(crop_scale=(0.2, 1.0), decode=decode, resize=resize)  # type: ignore[arg-type]
        images = LabelledImages(open_split(tmp_path, "train")[0], train_transform((64, 64), augment, IMAGENET))
        for seed in range(6):
            with seeded(seed):
                made.append(images[seed % 2][0].float())
    difference = (torch.stack(made[:6]) - torch.stack(made[6:])).abs()
    # the same crops: others would differ by 40 levels. Pillow takes them at a fraction of a pixel, torch's kernel does
    # not, and a pixel of the reduced image is four of the whole's
    assert 0 < float(difference.mean()) < (0.5 if resize == "pillow" else 1.5) and float(difference.max()) < 12


def test_mae_reads_them_reduced_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph(tmp_path / "train/0.jpg", 1600, 1200)
    sizes: list[tuple[int, int]] = []
    for decode in ("full", "reduced"):
        view = train_transform((32, 32), Augmentation(crop_scale=(0.2, 1.0), decode=decode), IMAGENET)  # type: ignore[arg-type]
        pixels = view.pixels
        view.pixels = lambda image, pixels=pixels: (sizes.append(image.size), pixels(image))[1]  # type: ignore[misc]
        assert MaskedImages(open_images(tmp_path / "train"), view, noise=lambda: torch.rand(16))[0][0].shape == (
            1,
            3,
            32,
            32,
        )
    assert sizes == [(1600, 1200), (200, 150)]
    assert open_images(tmp_path / "train").read(0, least_area=1600 * 1200 / 4).size == (800, 600)


@pytest.mark.parametrize("change", [{"decode": "reduced"}, {"resize": "tensor"}])
def test_what_has_no_effect_is_refused(change: dict[str, str]) -> None:
    (name,) = change
    values = {field: getattr(tiny(), field) for field in ("backbone", "run")}
    MAEConfig(**values, decoder_heads=4, decoder_dim=64, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{name} .* has no effect with target normalised and augmentation none"):
        MAEConfig(**values, decoder_heads=4, decoder_dim=64, augmentation="none", **change)  # type: ignore[arg-type]
