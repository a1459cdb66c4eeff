"""Photographs and label maps of any damage: decoded, or refused by an error with the file's name.

A label map that is accepted has the numbers that a reader of our own finds in the file.
"""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.images.file import upright_size
from engine.images.reading import read_reduced, read_rgb
from segmentation.data.convert import read_colours
from segmentation.data.labels import read_label_map
from tests.pixel_files import bmp, chunk, png, png_numbers, tiff

SIDE = (9, 13)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photographs() -> list[bytes]:
    """One file of each kind that the project meets."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (*SIDE, 3), dtype=np.uint8))
    grey = rng.integers(0, 65536, SIDE)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    deep = Image.fromarray(grey.astype(np.uint16))
    return [
        encoded(rgb, "JPEG", exif=exif),
        encoded(rgb.convert("L"), "JPEG"),
        encoded(rgb.convert("CMYK"), "JPEG", exif=exif),
        encoded(rgb, "JPEG", progressive=True),
        encoded(rgb, "PNG", exif=exif),
        encoded(rgb.convert("P"), "PNG", transparency=3),
        encoded(deep, "PNG"),
        encoded(rgb.convert("LA"), "PNG"),
        encoded(rgb, "WEBP", exif=exif),
        encoded(rgb, "WEBP", lossless=True),
        encoded(rgb, "TIFF", exif=exif),
        encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(rgb.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        encoded(rgb, "BMP"),
        encoded(rgb, "PPM"),
        encoded(rgb, "GIF"),
        b"P5 3 2 4095\n" + struct.pack(">6H", *range(0, 4096, 700)),
        tiff(grey // 16, 12),
        tiff(rng.random(SIDE).astype(np.float32), 32, sample=3),
        tiff(grey.astype(np.int32), 32, sample=2, order=">"),
        bmp(grey % 16, 4, [(k, 2 * k, 3 * k) for k in range(16)]),
    ]


def test_photographs(campaign: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    path, kinds = tmp_path / "f.img", photographs()

    def case(rng: random.Random) -> bytes:
        return bytes(damaged_bytes(rng, rng.choice(kinds)))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        image = read_rgb(path)
        assert image.mode == "RGB" and min(image.size) > 0
        assert len(image.tobytes()) == 3 * image.width * image.height
        assert upright_size(path) == image.size
        if max(image.size) <= 2000:
            assert read_reduced(path)[0].tobytes() == image.tobytes()

    campaign.run(case, read, cases=400, names="f.img")


@pytest.mark.parametrize("number", range(21))
def test_whole_photographs_are_read(number: int, tmp_path: Path) -> None:
    path = tmp_path / "f.img"
    path.write_bytes(photographs()[number])
    assert read_rgb(path).size in ((13, 9), (9, 13), (3, 2))


def rebuilt(rng: random.Random, content: bytes) -> bytes:
    """A PNG with one chunk changed and its checksum made to fit: what no transfer does, and what a bad writer does."""
    parts, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        parts.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = rng.randrange(len(parts))
    kind, data = parts[number]
    change = rng.randrange(6)
    if change == 0 and kind == b"IHDR":
        fields = list(struct.unpack(">IIBBBBB", data))
        fields[rng.randrange(7)] = rng.choice((0, 1, 2, 3, 4, 8, 9, 12, 13, 14, 16, 255))
        parts[number] = kind, struct.pack(">IIBBBBB", *fields)
    elif change == 1 and kind == b"IDAT":
        text = bytearray(zlib.decompress(data))
        text[rng.randrange(len(text))] = rng.randrange(256)
        parts[number] = kind, zlib.compress(bytes(text[: len(text) - rng.choice((0, 0, 1, 9))]))
    elif change == 2 and kind == b"IDAT":
        parts[number : number + 1] = [(kind, data[:7]), (kind, data[7:])]
    elif change == 3:
        parts.insert(number, parts[rng.randrange(len(parts))])
    elif change == 4:
        del parts[number]
    else:
        parts.insert(
            1, (rng.choice((b"tRNS", b"gAMA", b"sBIT", b"tEXt", b"PLTE", b"acTL")), rng.randbytes(rng.randrange(9)))
        )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def label_map(rng: random.Random) -> bytes:
    """A PNG of class numbers, grey or with a palette, at any depth."""
    bits = rng.choice((1, 2, 4, 8, 16))
    values = np.random.default_rng(rng.randrange(1000)).integers(0, 2**bits, SIDE)
    palette = bits < 16 and rng.random() < 0.5
    extra = chunk(b"PLTE", rng.randbytes(3 * 2**bits)) if palette else b""
    if rng.random() < 0.3:
        extra += chunk(b"tRNS", b"\0\1")
    return png(values, bits, colour=3 if palette else 0, extra=extra, filters=None)


def test_label_maps(campaign: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.png"

    def case(rng: random.Random) -> bytes:
        content = label_map(rng)
        kind = rng.randrange(4)
        return content if kind == 0 else rebuilt(rng, content) if kind == 1 else damaged_bytes(rng, content)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        np.testing.assert_array_equal(read_label_map(path), png_numbers(content))

    outcomes = campaign.run(case, read, cases=500, names="f.png")
    assert outcomes["read"] > 0.2 * sum(outcomes.values())


def test_label_maps_of_other_kinds(campaign: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.png"
    values = np.arange(SIDE[0] * SIDE[1]).reshape(SIDE)

    def case(rng: random.Random) -> bytes:
        bits = rng.choice((1, 2, 4, 8))
        content = tiff(values % 2**bits, bits, photometric=rng.randrange(2))
        if bits != 2 and rng.random() < 0.5:
            content = bmp(values % 2**bits, bits, [(k, 255 - k, k // 2) for k in range(2**bits)])
        return content if rng.random() < 0.2 else bytes(damaged_bytes(rng, content))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        label = read_label_map(path)
        assert label.ndim == 2 and label.dtype in (np.uint8, np.int32)

    campaign.run(case, read, cases=300, names="f.png")


def test_colours(campaign: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.png"

    def case(rng: random.Random) -> bytes:
        bits = rng.choice((8, 16))
        values = np.random.default_rng(rng.randrange(1000)).integers(0, 256, (*SIDE, 3))
        content = png(values * (257 if bits == 16 else 1), bits, colour=2, filters=None)
        return content if rng.random() < 0.3 else bytes(damaged_bytes(rng, content))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found, right = read_colours(path), png_numbers(content)
        np.testing.assert_array_equal(found, right if right.max() < 256 else right // 257)

    campaign.run(case, read, cases=300, names="f.png")
