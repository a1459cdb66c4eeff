"""PNG, TIFF and BMP files written byte by byte, and a PNG reader of our own: no library says what a file stores."""

import struct
import zlib

import numpy as np

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """The rows of (H, W) or (H, W, C) whole numbers, `bits` each, the first in the highest bits."""
    flat = values.reshape(len(values), -1)
    if bits >= 8:
        kind = {8: "u1", 16: "u2", 32: "u4"}[bits]
        return [row.astype(f"{order}{kind}").tobytes() for row in flat]
    rows = []
    for row in flat:
        places = np.stack([(row >> (bits - 1 - k)) & 1 for k in range(bits)], axis=1)
        rows.append(np.packbits(places.astype(np.uint8).reshape(-1)).tobytes())
    return rows


def png(values: np.ndarray, bits: int, *, colour: int = 0, extra: bytes = b"", filters: int | None = 0) -> bytes:
    """A PNG of whole numbers; `extra` are chunks before the pixels; `filters` None takes all five in turn."""
    height, width = values.shape[:2]
    size = max(1, bits * CHANNELS[colour] // 8)
    text, before = b"", bytes(len(packed(values[:1], bits)[0]))
    for number, row in enumerate(packed(values, bits)):
        kind = number % 5 if filters is None else filters
        text += bytes([kind]) + _filtered(row, before, kind, size)
        before = row
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(text)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_numbers(content: bytes) -> np.ndarray:
    """The whole numbers that a PNG without interlacing stores, (H, W) or (H, W, C). Raises for one that is damaged."""
    place, text, head = 8, b"", b""
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        data = content[place + 8 : place + 8 + length]
        given = content[place + 8 + length : place + 12 + length]
        if kind in (b"IHDR", b"IDAT") and len(given) == 4:  # the others hold no numbers
            assert zlib.crc32(kind + data) == int.from_bytes(given, "big")
        head = data if kind == b"IHDR" else head
        text += data if kind == b"IDAT" else b""
        place += 12 + length
        if kind == b"IEND":
            break
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    assert not interlaced
    # a stream may be cut off behind its last row
    text, channels = zlib.decompressobj().decompress(text), CHANNELS[colour]
    size, length = max(1, bits * channels // 8), -(-width * bits * channels // 8)
    before, rows = bytes(length), []
    for y in range(height):
        kind, row = text[y * (length + 1)], bytearray(text[y * (length + 1) + 1 : (y + 1) * (length + 1)])
        assert len(row) == length
        for x in range(length):
            row[x] = (row[x] + _predicted(row, before, x, kind, size)) & 255
        before = bytes(row)
        rows.append(_unpacked(before, bits)[: width * channels])
    values = np.array(rows)
    return values if channels == 1 else values.reshape(height, width, channels)


def tiff(values: np.ndarray, bits: int, *, photometric: int = 1, tags: dict[int, tuple[int, bytes]] | None = None,
         order: str = "<", sample: int = 1) -> bytes:  # fmt: skip
    """An uncompressed TIFF of one channel. `values` is (H, W), of dtype float32 for sample format 3.

    `tags` are further ones: number -> type and content.
    """
    if sample == 1 and bits == 12:
        rows = [_pairs(row) for row in values]
    else:
        rows = (
            packed(values, bits, order)
            if sample == 1
            else [r.astype(r.dtype.newbyteorder(order)).tobytes() for r in values]
        )
    text = b"".join(rows)
    short = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 277: 1, 278: len(values)}
    entries = {tag: (3, struct.pack(order + "H", number)) for tag, number in {**short, 339: sample}.items()}
    entries |= {273: (4, struct.pack(order + "I", 8)), 279: (4, struct.pack(order + "I", len(text)))} | (tags or {})
    start = 8 + len(text) + len(text) % 2
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    first = start + 2 + 12 * len(entries) + 4
    for tag, (kind, data) in sorted(entries.items()):
        count = len(data) // {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}[kind]
        if len(data) > 4:
            beyond, data = beyond + data, struct.pack(order + "I", first + len(beyond))
        directory += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, start)
    return head + text.ljust(start - 8, b"\0") + directory + bytes(4) + beyond


def bmp(values: np.ndarray, bits: int, palette: list[tuple[int, int, int]]) -> bytes:
    """A BMP with a palette of red, green and blue."""
    rows = [row + bytes(-len(row) % 4) for row in packed(values, bits)][::-1]
    colours = b"".join(bytes([b, g, r, 0]) for r, g, b in palette)
    head = struct.pack(
        "<IiiHHIIiiII", 40, values.shape[1], values.shape[0], 1, bits, 0, len(b"".join(rows)), 0, 0, len(palette), 0
    )
    start = 14 + 40 + len(colours)
    return struct.pack("<2sIHHI", b"BM", start + len(b"".join(rows)), 0, 0, start) + head + colours + b"".join(rows)


def _pairs(row: np.ndarray) -> bytes:
    places = np.stack([(row >> (11 - k)) & 1 for k in range(12)], axis=1)
    return np.packbits(places.astype(np.uint8).reshape(-1)).tobytes()


def _unpacked(row: bytes, bits: int) -> np.ndarray:
    if bits == 16:
        return np.frombuffer(row, dtype=">u2").astype(np.int64)
    places = np.unpackbits(np.frombuffer(row, dtype=np.uint8)).reshape(-1, bits).astype(np.int64)
    return places @ (1 << np.arange(bits)[::-1])


def _predicted(row: bytes | bytearray, before: bytes, x: int, kind: int, size: int) -> int:
    left = row[x - size] if x >= size else 0
    above, corner = before[x], before[x - size] if x >= size else 0
    if kind == 4:
        guess = left + above - corner
        return min((left, above, corner), key=lambda value: abs(guess - value))
    return (0, left, above, (left + above) // 2)[kind]


def _filtered(row: bytes, before: bytes, kind: int, size: int) -> bytes:
    return bytes((row[x] - _predicted(row, before, x, kind, size)) & 255 for x in range(len(row)))
