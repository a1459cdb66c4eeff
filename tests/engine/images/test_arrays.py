"""Images of other than three channels: numbers by hand, both orders of axes, and what is refused."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.images.arrays import ChannelsError, array_kind, array_size, as_picture, read_array, shown_as
from engine.images.file import UnreadableImageError
from engine.images.reading import find_images, open_images, read_picture, read_reduced, size_of


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    "stored, expected",
    [
        (np.array([[[0, 51], [102, 255]]], np.uint8), [0, 0.2, 0.4, 1]),
        (np.array([[[0, 13107], [26214, 65535]]], np.uint16), [0, 0.2, 0.4, 1]),
        (np.array([[[0, 13107], [26214, 65535]]], ">u2"), [0, 0.2, 0.4, 1]),
        (np.array([[[-7.5, 0.2], [0.4, 1e4]]], np.float32), [-7.5, 0.2, 0.4, 1e4]),
    ],
)
def test_numbers_by_hand(tmp_path: Path, stored: np.ndarray, expected: list[float]) -> None:
    path = saved(tmp_path / "a.npy", stored)
    image = read_array(path, "a", 2)
    assert image.dtype == np.float32 and image.shape == (1, 2, 2)
    np.testing.assert_allclose(image.flatten(), np.array(expected, np.float32), rtol=1e-7)  # one rounding to float32
    assert size_of(path, 2) == array_size(path, 2) == (2, 1)
    assert array_kind(path) == stored.dtype.newbyteorder("=").name


def test_axes_in_either_order(tmp_path: Path) -> None:
    last = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    paths = [
        saved(tmp_path / "last.npy", last),
        saved(tmp_path / "first.npy", np.ascontiguousarray(last.transpose(2, 0, 1))),
        saved(tmp_path / "fortran.npy", np.asfortranarray(last)),
    ]
    for path in paths:
        for channels in (4, None):
            assert np.array_equal(read_array(path, "a", channels), last.astype(np.float32) / 255)
            assert array_size(path, channels) == (7, 6)
    many = np.random.default_rng(0).random((9, 4, 5), np.float32)  # more channels than rows, first
    assert np.array_equal(read_array(saved(tmp_path / "many.npy", many), "a", 9), many.transpose(1, 2, 0))
    flat = saved(tmp_path / "flat.npy", last[:, :, 0])
    assert read_array(flat, "a", 1).shape == (6, 7, 1) and array_size(flat) == (7, 6)


@pytest.mark.parametrize("shape, found", [((8, 9, 5), 5), ((5, 8, 9), 5), ((8, 9), 1), ((64, 64, 200), 200)])
def test_another_number_of_channels_stops_a_run(tmp_path: Path, shape: tuple[int, ...], found: int) -> None:
    path = saved(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    message = rf"x\.npy: an array of shape .*has {found} channel.*in_chans is 4.*Give --in-chans {found}"
    for read in (lambda: read_picture(path, 4), lambda: size_of(path, 4)):
        with pytest.raises(ChannelsError, match=message):
            read()
    assert not issubclass(ChannelsError, UnreadableImageError)  # which training counts and goes on from


@pytest.mark.parametrize(
    "array, message",
    [
        (np.array([[{}]], object), "pickled objects, which are not read"),
        (np.zeros((4, 4, 5), np.int16), r"an array of int16; uint8, uint16 and float32 are read.*astype"),
        (np.zeros((4, 4, 5)), "an array of float64"),
        (np.zeros(4, np.uint8), r"shape \(4,\); an image is \(height, width, channels\)"),
        (np.zeros((4, 0, 5), np.uint8), r"shape \(4, 0, 5\)"),
        (np.full((2, 2, 5), np.nan, np.float32), "20 of its 20 numbers are not finite"),
    ],
)
def test_refused_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(UnreadableImageError, match=rf"x\.npy: unreadable image \(.*{message}"):
        read_picture(path, 5)


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.npy", np.zeros((8, 8, 5), np.uint16))
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], "truncated: 639 of its 640 bytes"),
        (whole[:40], "no array of NumPy, or a damaged header: EOF"),
        (b"", "no array of NumPy"),
        (b"not an array at all", "no array of NumPy"),
        (whole.replace(b"(8, 8, 5)", b"(8, 8, 5"), "no array of NumPy, or a damaged header"),
    ):
        path.write_bytes(content)
        for read in (lambda: read_picture(path, 5), lambda: size_of(path, 5)):
            with pytest.raises(UnreadableImageError, match=message):
                read()
    path.write_bytes(whole)
    monkeypatch.setenv("MAE_TRANSFER_MAX_MEGAPIXELS", "1")
    huge = whole.replace(b"(8, 8, 5), }          ", b"(8000, 8000, 5), }    ")
    assert len(huge) == len(whole) and huge != whole
    path.write_bytes(huge)
    with pytest.raises(UnreadableImageError, match="8000 x 8000 pixels; more than 1 megapixels"):  # and takes no memory
        read_picture(path, 5)


def test_other_files_say_how_they_are_converted(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "bands.tif")
    with pytest.raises(UnreadableImageError, match=r"bands\.tif: .*no \.npy array.*5 channels.*tifffile\.imread"):
        read_picture(tmp_path / "bands.tif", 5)
    with pytest.raises(FileNotFoundError, match=r"no image file \(\.npy\).* 1 other images are there \(bands\.tif"):
        open_images(tmp_path, 5)
    (tmp_path / "bands.tif").unlink()
    saved(tmp_path / "a.npy", np.zeros((4, 4, 5), np.uint8))
    for find in (open_images, find_images):
        with pytest.raises(FileNotFoundError, match=r"1 \.npy arrays are there: .* declared by --in-chans"):
            find(tmp_path)


def test_a_folder_and_a_shard_hold_the_same_images(tmp_path: Path) -> None:
    folder, packed = tmp_path / "files", tmp_path / "packed"
    folder.mkdir(), packed.mkdir()
    with tarfile.open(packed / "0.tar", "w") as tar:
        for number in range(3):
            path = saved(folder / f"{number}.npy", np.full((4, 6, 5), 20 * number, np.uint8))
            tar.add(path, f"{number}.npy")
        entry, content = tarfile.TarInfo("readme.txt"), b"five channels"
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    files, shards = open_images(folder, 5), open_images(packed, 5)
    assert len(files) == len(shards) == 3
    for number in range(3):
        first, second = files.read(number), shards.read(number)
        assert isinstance(first, np.ndarray) and np.array_equal(first, np.asarray(second))
        assert first.max() == np.float32(20 * number) / 255


def test_what_a_picture_shows(tmp_path: Path) -> None:
    image: Any = np.zeros((1, 101, 4), np.float32)
    image[0, :, 0] = np.arange(101)  # 2nd percentile 2, 98th 98
    image[0, :, 1] = 7  # of one number: black
    image[0, :, 2] = np.arange(101) / 1000
    shown = np.asarray(as_picture(image))
    assert shown.shape == (1, 101, 3) and shown.dtype == np.uint8
    assert shown[0, [0, 2, 50, 98, 100], 0].tolist() == [0, 0, 128, 255, 255]  # (50 - 2) / 96 is a half
    assert not shown[..., 1].any() and np.abs(shown[..., 0].astype(int) - shown[..., 2]).max() <= 1
    grey = np.asarray(as_picture(image[:, :, :2]))
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 0], shown[..., 0])
    assert shown_as(5) == "channels 0, 1, 2 as red, green, blue" and shown_as(2) == "channel 0 as grey"
    reduced, size = read_reduced(saved(tmp_path / "x.npy", np.zeros((30, 60, 5), np.uint8)), 20)
    assert reduced.size == (20, 10) and size == (60, 30)


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.arange(80, dtype=np.uint16).reshape(4, 4, 5))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for place in rng.integers(0, 140, rng.integers(1, 4)):  # the header has 128 bytes
            content[place] = rng.integers(0, 256)
        path.write_bytes(bytes(content))
        try:
            image = read_picture(path, 5)
        except (UnreadableImageError, ChannelsError):
            refused += 1
        else:
            assert isinstance(image, np.ndarray) and image.dtype == np.float32 and image.shape[2] == 5
    assert 100 < refused < 400
