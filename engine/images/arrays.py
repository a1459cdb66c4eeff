"""Images of any number of channels: one NumPy array a file (.npy), (height, width, channels) or channels first.

Numbers are uint8, uint16 or float32. Pixels count from 0 to 1 as those of RGB do: uint8 / 255, uint16 / 65535, float32
as it is. Nothing is stretched or clipped. Only the plain header of the format is read, so that no pickle is ever
opened (NumPy, `numpy.lib.format`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from engine.images.file import UnreadableImageError, most_megapixels, too_large

ENDINGS = (".npy",)
RGB = 3  # channels of a photograph
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}  # the number that counts as 1
DARK, BRIGHT = 2, 98  # percentiles that a picture of a channel begins and ends at
# by the version of the format; 3.0 is of fields with names beyond Latin-1
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
LAST, LAST_FROM_FIRST = (0, 1, 2), (1, 2, 0)  # orders of axes that bring the channels last
WAY_OUT = "save it by numpy.save(FILE, array)"


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def is_array(name: str | Path) -> bool:
    """Return whether a file is an array by its name."""
    return str(name).lower().endswith(ENDINGS)


def read_array(file: str | Path | BinaryIO, name: str, channels: int | None = None) -> np.ndarray:
    """Return the image of an array, (H, W, C) float32, from 0 to 1 where the file holds whole numbers.

    The channels are on the last axis, or on the first where the last has another number; where `channels` is None, on
    the first where that is the shortest. An array of two axes has one channel.

    Raises UnreadableImageError for a file that is damaged, no array of one of the three types, larger than
    `most_megapixels`, or holds numbers that are not finite; and ValueError, which stops a run, for another number of
    channels.
    """
    with _opened(file, name) as stream:
        header = _header(stream)
        axes = _axes(header, name, channels)
        expected = math.prod(header.shape) * header.dtype.itemsize
        content = stream.read(expected)
        if len(content) < expected:
            raise ValueError(f"truncated: {len(content):,} of its {expected:,} bytes of numbers are there")
        order = "F" if header.fortran else "C"
        stored = np.frombuffer(content, header.dtype).reshape(header.shape, order=order)  # type: ignore[call-overload]
        white = WHITE[header.dtype.newbyteorder("=")]
        image_HWC = np.array(stored.reshape(*header.shape, 1) if axes is None else stored.transpose(axes), np.float32)
        if white != 1:
            image_HWC /= white
        elif (missing := image_HWC.size - int(np.isfinite(image_HWC).sum())) > 0:
            raise ValueError(
                f"{missing:,} of its {image_HWC.size:,} numbers are not finite; fill what is missing, for instance "
                "with the mean of the channel"
            )
    return image_HWC


def array_size(path: Path, channels: int | None = None) -> tuple[int, int]:
    """Return width and height from the header. Raises as `read_array`."""
    with _opened(path, str(path)) as stream:
        header = _header(stream)
        axes = _axes(header, str(path), channels)
        height, width = header.shape if axes is None else (header.shape[axis] for axis in axes[:2])
        held = path.stat().st_size - stream.tell()
        if held < (expected := math.prod(header.shape) * header.dtype.itemsize):
            raise ValueError(f"truncated: {held:,} of its {expected:,} bytes of numbers are there")
        return width, height


def array_kind(path: Path) -> str:
    """Return the type of an array's numbers: uint8, uint16 or float32. Raises as `read_array`."""
    with _opened(path, str(path)) as stream:
        return str(_header(stream).dtype.newbyteorder("="))


def as_picture(image_HWC: np.ndarray) -> Image.Image:
    """Return an image of any number of channels as `shown_as` says: 8-bit RGB, each channel from its 2nd to its 98th
    percentile."""
    shown_HWK = image_HWC[:, :, : RGB if image_HWC.shape[2] >= RGB else 1]
    low_K, high_K = np.percentile(shown_HWK, (DARK, BRIGHT), axis=(0, 1))
    share_HWK = (shown_HWK - low_K) / np.maximum(high_K - low_K, 1e-12)
    level_HWK = (255 * share_HWK.clip(0, 1)).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(level_HWK, (*level_HWK.shape[:2], RGB))))


def shown_as(channels: int) -> str:
    """Return what a picture shows of an image of other than three channels."""
    return "channels 0, 1, 2 as red, green, blue" if channels >= RGB else "channel 0 as grey"


@contextmanager
def _opened(file: str | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Give the file; whatever is raised before the block ends, but a wrong number of channels, names it."""
    try:
        if isinstance(file, str | Path):
            with open(file, "rb") as stream:
                yield stream
        else:
            yield file
    except (UnreadableImageError, ChannelsError):
        raise
    except (OSError, ValueError, MemoryError) as error:
        text = " ".join(str(error).split())
        raise UnreadableImageError(name, text or type(error).__name__) from error


class ChannelsError(ValueError):
    """An image of another number of channels than the run is of: a fault of the data set, not of one file."""


def _header(stream: BinaryIO) -> _Header:
    """Return the header, the stream being at the first number then. Raises ValueError for what is no image's."""
    try:
        version = npy.read_magic(stream)
        if version in READERS:
            shape, fortran, dtype = READERS[version](stream)
    except Exception as error:  # NumPy's parser raises whatever its code comes to
        raise ValueError(f"no array of NumPy, or a damaged header: {' '.join(str(error).split())}") from error
    if version not in READERS:
        raise ValueError(f"an array of format {version}, whose entries are no plain numbers; {WAY_OUT}")
    if dtype.hasobject:
        raise ValueError(f"pickled objects, which are not read; {WAY_OUT} of numbers")
    if dtype.newbyteorder("=") not in WHITE:
        raise ValueError(
            f"an array of {dtype}; uint8, uint16 and float32 are read: convert it by array.astype(numpy.float32)"
        )
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape}; an image is (height, width, channels), or (height, width) of one")
    return _Header(shape, fortran, dtype)


def _axes(header: _Header, name: str, channels: int | None) -> tuple[int, int, int] | None:
    """Return the order of axes that brings the channels last, None where there are two axes alone.

    Raises ChannelsError and, for an image that is too large, ValueError.
    """
    shape = header.shape
    if len(shape) == 2:
        if channels not in (None, 1):
            raise ChannelsError(_another(name, shape, channels, 1))
        axes = None
    elif channels is None:
        axes = LAST_FROM_FIRST if _first_is_shortest(shape) else LAST
    elif channels == shape[2]:
        axes = LAST
    elif channels == shape[0]:
        axes = LAST_FROM_FIRST
    else:
        raise ChannelsError(_another(name, shape, channels, shape[0 if _first_is_shortest(shape) else 2]))
    height, width = shape if axes is None else (shape[axis] for axis in axes[:2])
    if height * width > (most := most_megapixels()) * 10**6:
        raise ValueError(f"{width} x {height} pixels; {too_large(most)}")
    return axes


def _first_is_shortest(shape: tuple[int, ...]) -> bool:
    return shape[0] < min(shape[1:])


def _another(name: str, shape: tuple[int, ...], channels: int | None, found: int) -> str:
    return (
        f"{name}: an array of shape {shape}, by which it has {found} channel(s), and in_chans is {channels}: "
        f"(height, width, {channels}) or ({channels}, height, width) is read. Give --in-chans {found}, or take the "
        f"file out, or save it with {channels}."
    )
