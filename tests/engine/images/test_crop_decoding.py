"""JPEGs decoded when the crop is drawn, as small as it allows: which fraction, the same crops, and the pixels."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import LabelledImages, open_split, train_transform
from engine.images import jpeg
from engine.images.file import UnreadableImageError
from engine.images.jpeg import Undecoded
from engine.images.reading import ImageFile, file_at, open_images, read_rgb, rgb_of
from engine.training.seeding import seeded
from pretraining.data import MaskedImages
from tests.engine.images.test_reduced_decoding import photograph

CROPS = Augmentation(crop_scale=(0.2, 1.0), decode="crop")


def file_of(image: Image.Image, kind: str = "JPEG", **options: Any) -> ImageFile:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return ImageFile("a", buffer.getvalue())


def size_of(picture: Any) -> tuple[int, int]:
    """Return width and height."""
    return (picture.shape[2], picture.shape[1]) if isinstance(picture, torch.Tensor) else picture.size


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ((100, 100), (800, 400)),  # as large as the model's image
        ((199, 400), (800, 400)),
        ((200, 200), (400, 200)),
        ((400, 399), (400, 200)),
        ((400, 400), (200, 100)),
        ((400, 800), (200, 100)),
    ],
)
def test_how_small_a_jpeg_is_decoded(crop: tuple[int, int], expected: tuple[int, int]) -> None:
    file = file_of(Image.new("RGB", (800, 400)))
    for tensors in (False, True):
        undecoded = Undecoded(file)
        assert undecoded.size == (800, 400)
        made = undecoded.decoded(crop, (100, 100), tensors=tensors)
        assert size_of(made) == expected
        assert isinstance(made, torch.Tensor) == (tensors and expected == (800, 400))


def test_other_files_are_decoded_whole() -> None:
    undecoded = Undecoded(file_of(Image.new("RGB", (800, 400)), "PNG"))
    assert size_of(undecoded.decoded((400, 400), (100, 100), tensors=True)) == (800, 400)


@pytest.mark.parametrize(("orientation", "size"), [(1, (80, 40)), (3, (80, 40)), (6, (40, 80))])
def test_the_size_is_that_of_the_upright_image(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for kind in ("JPEG", "TIFF"):
        file = file_of(Image.new("RGB", (80, 40)), kind, exif=exif)
        undecoded = Undecoded(file)
        assert undecoded.size == size
        assert size_of(undecoded.decoded((8, 8), (8, 8), tensors=True)) == size


@pytest.mark.parametrize("resize", ["pillow", "tensor"])
def test_pixels_are_those_of_decoding_at_that_fraction_and_cropping_then(resize: Any, tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", 700, 500)
    view = train_transform((64, 64), replace(CROPS, resize=resize), IMAGENET)
    whole_view = train_transform((64, 64), replace(CROPS, resize=resize, decode="full"), IMAGENET)
    assert view.takes_files and not whole_view.takes_files
    fractions = set()
    for seed in range(12):
        undecoded = Undecoded(file_at(path))
        with seeded(seed):
            made = view.pixels(undecoded)
        ((factor, _),) = undecoded._made.items()
        fractions.add(factor)
        least = None if factor == 1 else 700 * 500 / factor**2
        with seeded(seed):
            expected = whole_view.pixels(read_rgb(path, least_area=least))
        assert torch.equal(made, expected)
        with seeded(seed):
            full = whole_view.pixels(read_rgb(path))
        # other crops would differ by 40 levels; torch's kernel takes whole pixels, here of two or four of the whole
        assert float((made.float() - full.float()).abs().mean()) < (0.5 if resize == "pillow" else 2.5)
    assert fractions == {2, 4}  # crops of 64 px of which the shorter side has 273 to 500 pixels, and fewer at 4 : 3


@pytest.mark.parametrize("resize", ["pillow", "tensor"])
def test_an_image_that_no_crop_lets_shrink_gives_the_same_pixels(resize: Any, tmp_path: Path) -> None:
    photograph(tmp_path / "train/a/0.jpg", 120, 100)
    photograph(tmp_path / "train/b/0.jpg", 100, 120)
    made = []
    for decode in ("full", "crop"):
        augment = Augmentation(crop_scale=(0.2, 1.0), decode=decode, resize=resize)  # type: ignore[arg-type]
        data = LabelledImages(open_split(tmp_path, "train")[0], train_transform((64, 64), augment, IMAGENET))
        for index in (0, 1):
            with seeded(index):
                made.append(data[index][0])
    assert torch.equal(made[0], made[2]) and torch.equal(made[1], made[3])  # type: ignore[arg-type]


def test_crops_of_one_image_are_decoded_once_for_each_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph(tmp_path / "train/0.jpg", 700, 500)
    asked: list[float | None] = []

    def counted(file: ImageFile, *, least_area: float | None = None) -> Any:
        asked.append(least_area)
        return rgb_of(file, least_area=least_area)

    monkeypatch.setattr(jpeg, "rgb_of", counted)
    data = MaskedImages(
        open_images(tmp_path / "train"),
        train_transform((64, 64), CROPS, IMAGENET),
        noise=lambda: torch.rand(4),
        repeats=12,
    )
    with seeded(0):
        assert data[0][0].shape == (12, 3, 64, 64)
    assert len(asked) == len(set(asked)) == 2


def test_what_follows_the_crop_follows_it_here_too(tmp_path: Path) -> None:
    """RandAugment, erasing, and a user's change of the pixels."""
    file = file_at(photograph(tmp_path / "a.jpg", 300, 300))
    augment = replace(CROPS, randaugment="rand-m9", erase=1.0)
    view = train_transform((64, 64), augment, IMAGENET)
    with seeded(1):
        made = view.pixels(Undecoded(file))
    assert made.dtype == torch.float32 and made.shape == (3, 64, 64)
    plain = train_transform((64, 64), CROPS, IMAGENET)
    assert int(plain.changed(Undecoded(file), np.zeros_like).max()) == 0


def test_a_broken_file_is_unreadable(tmp_path: Path) -> None:
    content = file_at(photograph(tmp_path / "a.jpg", 300, 300)).content
    view = train_transform((64, 64), CROPS, IMAGENET)
    with pytest.raises(UnreadableImageError, match="a: unreadable image"):
        Undecoded(ImageFile("a", b"nothing"))
    with pytest.raises(UnreadableImageError, match="a: unreadable image"):
        view.pixels(Undecoded(ImageFile("a", content[: len(content) // 2])))
