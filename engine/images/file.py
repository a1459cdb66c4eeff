"""One place where image files are opened: what a decoder raises names the file, and the largest image is declared once.

Pillow's decoders raise whatever their code comes to (struct.error, KeyError, ZeroDivisionError, MemoryError, ...), so
every exception between opening a file and closing it is an UnreadableImageError.
"""

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

MEGAPIXELS = 179  # Pillow's own limit, 178,956,970 pixels
MOST = 10**6  # megapixels that can be asked for
SAID_FROM = 50  # megapixels
VARIABLE = "MAE_TRANSFER_MAX_MEGAPIXELS"
ORIENTATION = 0x0112
SCALED = "scaled"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF 2.3, tag Orientation
AT_ONCE = 2**20  # bytes
PNG = b"\x89PNG\r\n\x1a\n"


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded; training counts it and goes on to another."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it survives pickling between processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: unreadable image ({self.reason})."


@contextmanager
def opened(file: str | Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Give the image with its header read and its pixels not yet.

    Raises UnreadableImageError that names the file for whatever is raised before the block ends, and for an image of
    more than `most_megapixels`.
    """
    try:
        most = most_megapixels()
        Image.MAX_IMAGE_PIXELS = most * 10**6  # Pillow raises at twice that
        with Image.open(file) as image:
            if image.width * image.height > most * 10**6:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            if image.format == "BMP":
                _check_bmp(image)
            yield image
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(name, f"{error}; {too_large(most)}") from error
    except Exception as error:
        raise UnreadableImageError(name, _reason(error)) from error


def most_megapixels() -> int:
    """Return the largest size that is read, in 10^6 pixels."""
    given = os.environ.get(VARIABLE, "")
    if given and not (given.isascii() and given.isdigit() and len(given) < 8 and 1 <= int(given) <= MOST):
        raise ValueError(f"{VARIABLE} is {given!r}; it must be a whole number of megapixels from 1 to {MOST:,}")
    return int(given) if given else MEGAPIXELS


def allow_megapixels(megapixels: int | None, *, at_least: bool = False) -> None:
    """Read images of up to this size from now on, here and in the processes started from here; None changes nothing.

    `at_least` lowers no limit that is higher. A process started by fork or spawn has the environment of the one that
    starts it, so the limit is kept there. A pixel costs 4 bytes while an image is decoded and 3 to 12 in what becomes
    of it, per image that a process holds at once: 1,000 megapixels are 7 to 16 GB.

    Raises ValueError for a size that is none.
    """
    if megapixels is None or (at_least and megapixels <= most_megapixels()):
        return
    if not 1 <= megapixels <= MOST:
        raise ValueError(f"--max-megapixels {megapixels}: it must be from 1 to {MOST:,}.")
    os.environ[VARIABLE] = str(megapixels)


def say_need(path: Path, bytes_per_pixel: int) -> None:
    """Say on stderr how much memory an image takes before it takes it, from SAID_FROM megapixels on.

    Raises UnreadableImageError.
    """
    width, height = upright_size(path)
    if width * height >= SAID_FROM * 10**6:
        need = width * height * bytes_per_pixel / 1e9
        text = f"note: {path}: {width} x {height} pixels, for which about {need:.1f} GB of memory are needed."
        print(text, file=sys.stderr, flush=True)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return what brings an image upright. Of its EXIF only Orientation is read: other tags are often malformed."""
    orientation: Any = image.getexif().get(ORIENTATION)  # whatever the file holds
    return TURNS.get(orientation)


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height from the header, as they are once the EXIF orientation is applied.

    Raises UnreadableImageError.
    """
    with opened(path, str(path)) as image:
        width, height = image.size
        on_its_side = turn_of(image) in [TURNS[number] for number in (5, 6, 7, 8)]
        # Pillow states a TIFF's size as it is upright, and turns its pixels itself
        return (height, width) if on_its_side and image.format != "TIFF" else (width, height)


def raw_mode(image: Image.Image) -> str:
    """Return how the pixels are stored, in Pillow's words (`L;2`: two bits), "" where the decoder has no word for it.

    SCALED where it gives other numbers than are stored.

    To be asked before the pixels are loaded.
    """
    if not image.tile:  # type: ignore[attr-defined]  # of every image that is read from a file
        return ""
    codec, _, _, args = image.tile[0]  # type: ignore[attr-defined]
    if codec in ("ppm", "ppm_plain"):  # Pillow scales to 255 or 65535 by the highest value that the file declares
        return SCALED
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def check_sums(path: Path) -> None:
    """Raise UnreadableImageError where the pixels of a PNG are not all there, or not those that were written.

    Pillow does not look at checksums, and leaves rows that are missing black: it takes other pixels out of a damaged
    file in silence.
    """
    try:
        with path.open("rb") as file:
            if file.read(8) != PNG:
                return
            _check_chunks(file)
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raise UnreadableImageError(str(path), _reason(error)) from error


def _check_chunks(file: BinaryIO) -> None:
    """Raise ValueError, zlib.error or struct.error for damage of the chunks behind the first 8 bytes of a PNG."""
    unpacker, expected, found = zlib.decompressobj(), 0, 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        if kind not in (b"IHDR", b"IDAT"):
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data, given = file.read(length), file.read(4)
        if len(given) == 4 and zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(given, "big"):
            raise ValueError("damaged: its pixels do not have the checksum that the file states")
        if kind == b"IHDR":
            expected = _bytes_of_pixels(data)
            continue
        while data and found < expected:
            found += len(unpacker.decompress(data, AT_ONCE))
            data = unpacker.unconsumed_tail
    if found < expected:
        raise ValueError(f"damaged: it holds {found:,} of the {expected:,} bytes of its pixels")


def _bytes_of_pixels(header: bytes) -> int:
    """Return how many bytes the rows of a PNG have, by its IHDR chunk; every row has one byte for its filter."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    # Adam7: first column and row, steps between columns and rows
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    total = 0
    for x, y, across, down in passes if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        total += max(0, rows) * (1 + -(-columns * per_pixel // 8)) if columns > 0 else 0
    return total


def _check_bmp(image: Image.Image) -> None:
    """Raise ValueError for a BMP with a grey palette whose pixels Pillow takes for as many bits as greys need."""
    if image.mode not in ("1", "L"):
        return
    file = image.fp  # type: ignore[attr-defined]  # of every image that is read from a file
    place = file.tell()
    file.seek(14)
    header = file.read(20)
    file.seek(place)
    old = header[:4] == struct.pack("<I", 12)  # OS/2's header is shorter
    (bits,) = struct.unpack_from("<H", header, 10 if old else 14)
    packed = image.info["compression"] != 0
    if bits != {"1": 1, "L": 8}[image.mode] and not (packed and image.mode == "L"):
        raise ValueError(f"a BMP of {bits} bits with a palette of greys, which is read wrongly; save it as PNG")


def too_large(most: int) -> str:
    """Return what is to be said of the limit, and how it is raised."""
    return (
        f"more than {most} megapixels. If its origin is trusted and there is memory (7 to 16 bytes per pixel), "
        f"raise the limit by --max-megapixels N, or by {VARIABLE}=N for tools without that flag"
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    # a bare KeyError or struct.error says nothing without its kind
    return text if text and isinstance(error, OSError | SyntaxError | ValueError) else f"{type(error).__name__}: {text}"
