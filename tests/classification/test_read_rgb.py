"""Every kind of photograph becomes upright 8-bit RGB, or an error that names the file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.images.reading import UnreadableImageError, find_images, read_rgb


def pixels(path: Path) -> np.ndarray:
    """The image as read, (H, W, 3)."""
    image = read_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_grey_with_alpha_and_bilevel(tmp_path: Path) -> None:
    Image.new("LA", (2, 2), (90, 7)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == [90, 90, 90]
    Image.new("1", (2, 2), 1).save(tmp_path / "b.png")
    assert pixels(tmp_path / "b.png")[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = pixels(tmp_path / "a.jpg")[8, 8].tolist()  # magenta and yellow make red
    assert red > 240 and green < 15 and blue < 15  # JPEG is lossy


def test_palette_and_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=0)
    Image.new("RGBA", (3, 2), (10, 20, 30, 128)).save(tmp_path / "c.png")
    for name in ("a.png", "b.png", "c.png"):
        assert pixels(tmp_path / name).tolist() == [[[10, 20, 30]] * 3] * 2


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.array([[0, 300, 40000, 65535]], dtype=np.uint16)).save(tmp_path / name)
    assert pixels(tmp_path / name)[0, :, 0].tolist() == [0, 1, 156, 255]  # over 257, rounded


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: left becomes top
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = pixels(tmp_path / "a.jpg")
    assert shown.shape == (32, 16, 3)
    assert shown[:14].min() > 240 and shown[18:].max() < 15


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_truncated_jpeg_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "holiday.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImageError, match=r"holiday\.jpg: unreadable image \(.+\)\.$") as caught:
        read_rgb(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # it crosses loader processes


def test_text_and_absent_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("text.jpg", "absent.jpg"):
        with pytest.raises(UnreadableImageError, match=name):
            read_rgb(tmp_path / name)


def test_images_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/1.png", "a/note.txt", "c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in find_images(tmp_path)] == ["a/1.png", "b/2.JPG", "c.webp"]


def test_float_grey_from_0_to_1_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.fromarray(np.array([[0.0, 0.5], [1.0, np.nan]], dtype=np.float32)).save(path)
    assert np.asarray(read_rgb(path))[..., 0].tolist() == [[0, 128], [255, 0]]  # 127.5 rounds to even


def test_dark_16_bit_photograph_stays_dark(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((2, 2), 200, dtype=np.uint16)).save(path)
    assert np.asarray(read_rgb(path)).max() == 1  # 200 / 65535 * 255 = 0.8
