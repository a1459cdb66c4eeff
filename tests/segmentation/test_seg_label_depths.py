"""The numbers of a label map are those that the file stores, at every depth and in every kind of file."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.images.file import UnreadableImageError
from segmentation.data.check import check_ade20k
from segmentation.data.labels import read_label_map
from tests.pixel_files import bmp, chunk, png, png_numbers, tiff

GREYS = [(k, k, k) for k in range(16)]


def numbers(bits: int) -> np.ndarray:
    """All numbers of so many bits, up to 300 of them, in rows of 13."""
    return (np.arange(13 * 24) % 2 ** min(bits, 16)).reshape(24, 13)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png(tmp_path: Path, bits: int) -> None:
    content = png(numbers(bits), bits, filters=None)
    np.testing.assert_array_equal(png_numbers(content), numbers(bits))  # our writer and our reader agree
    label = read_label_map(put(tmp_path / "a.png", content))
    assert label.dtype == (np.uint8 if bits <= 8 else np.int32)
    np.testing.assert_array_equal(label, numbers(bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png(tmp_path: Path, bits: int) -> None:
    # every colour of the palette is the same grey, as no reader of displayed values would survive
    content = png(numbers(bits), bits, colour=3, extra=chunk(b"PLTE", bytes([9]) * 3 * 2**bits))
    np.testing.assert_array_equal(read_label_map(put(tmp_path / "a.png", content)), numbers(bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_see_through_png(tmp_path: Path, bits: int) -> None:
    grey = png(numbers(bits), bits, extra=chunk(b"tRNS", struct.pack(">H", 1)))
    np.testing.assert_array_equal(read_label_map(put(tmp_path / "a.png", grey)), numbers(bits))
    if bits <= 8:
        extra = chunk(b"PLTE", bytes(range(3 * 2**bits % 256)).ljust(3 * 2**bits, b"\0")) + chunk(b"tRNS", b"\0\x80")
        palette = png(numbers(bits), bits, colour=3, extra=extra)
        np.testing.assert_array_equal(read_label_map(put(tmp_path / "b.png", palette)), numbers(bits))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_channel_of_alpha_is_refused(tmp_path: Path, bits: int) -> None:
    values = np.stack([numbers(bits), np.full((24, 13), 2**bits - 1)], axis=2)
    with pytest.raises(ValueError, match=r"a\.png: a label map of mode (LA|RGBA) \(\d channels, the colour ones equal"):
        read_label_map(put(tmp_path / "a.png", png(values, bits, colour=4)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_tiff(tmp_path: Path, bits: int, photometric: int, order: str) -> None:
    path = put(tmp_path / "a.png", tiff(numbers(bits), bits, photometric=photometric, order=order))
    if (bits, photometric, order) == (16, 0, ">"):
        with pytest.raises(UnreadableImageError, match=r"a\.png"):  # Pillow has no decoder for it
            read_label_map(path)
    else:
        np.testing.assert_array_equal(read_label_map(path), numbers(bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_with_palette_and_from_the_lowest_bit(tmp_path: Path, bits: int) -> None:
    colours = {320: (3, bytes(2 * 3 * 2**bits))}
    path = put(tmp_path / "a.png", tiff(numbers(bits), bits, photometric=3, tags=colours))
    np.testing.assert_array_equal(read_label_map(path), numbers(bits))
    values = numbers(8)
    backwards = np.array([int(f"{value:08b}"[::-1], 2) for value in values.flat]).reshape(values.shape)
    fill = {266: (3, struct.pack("<H", 2))}
    np.testing.assert_array_equal(read_label_map(put(tmp_path / "b.png", tiff(backwards, 8, tags=fill))), values)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp(tmp_path: Path, bits: int) -> None:
    coloured = [(200, k % 256, 7) for k in range(2**bits)]
    path = put(tmp_path / "a.png", bmp(numbers(bits), bits, coloured))
    np.testing.assert_array_equal(read_label_map(path), numbers(bits))


def test_bmp_of_greys_is_not_misread(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"a\.png: .*a BMP of 4 bits with a palette of greys"):
        read_label_map(put(tmp_path / "a.png", bmp(numbers(4), 4, GREYS)))
    black_and_white = bmp(numbers(1), 8, [(0, 0, 0), (255, 255, 255)])
    with pytest.raises(UnreadableImageError, match=r"a BMP of 8 bits with a palette of greys"):
        read_label_map(put(tmp_path / "b.png", black_and_white))
    greys = bmp(numbers(8), 8, [(k, k, k) for k in range(256)])
    np.testing.assert_array_equal(read_label_map(put(tmp_path / "c.png", greys)), numbers(8))


def test_what_is_saved_with_loss_or_scaled_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(numbers(8).astype(np.uint8))
    image.save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(
        ValueError, match=r"a\.png: a label map saved as JPEG, which changes its numbers; save it as PNG"
    ):
        read_label_map(tmp_path / "a.png")
    image.save(tmp_path / "b.png", format="TIFF", compression="jpeg")
    with pytest.raises(ValueError, match=r"b\.png: a label map saved as TIFF with JPEG inside"):
        read_label_map(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"P5 3 1 3\n\x00\x01\x03")  # a PGM of two bits: 0, 1, 3 are shown as 0, 85, 255
    with pytest.raises(ValueError, match=r"c\.png: a label map of scaled pixels, whose numbers cannot be told"):
        read_label_map(tmp_path / "c.png")
    image.save(tmp_path / "d.png", format="GIF")
    np.testing.assert_array_equal(read_label_map(tmp_path / "d.png"), numbers(8))


def test_damaged_pixels_are_not_taken_for_labels(tmp_path: Path) -> None:
    content = bytearray(png(numbers(8), 8))
    place = content.index(b"IDAT") + 4
    length = int.from_bytes(content[place - 8 : place - 4], "big")
    for bit in range(8 * length):
        damaged = bytearray(content)
        damaged[place + bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnreadableImageError, match=r"a\.png"):
            read_label_map(put(tmp_path / "a.png", bytes(damaged)))


def test_a_set_of_two_bit_maps_is_checked_by_its_numbers(write_folder, tmp_path: Path) -> None:
    folder = write_folder()
    for path in (folder / "annotations").rglob("*.png"):
        path.write_bytes(png(np.asarray(Image.open(path)).astype(int), 2))
    checked = check_ade20k(folder)
    assert checked.faults == ()
    rows = [line.split() for line in checked.lines if line.startswith(" ") and line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
