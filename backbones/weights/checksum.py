"""Checksums within weight files: whether the bytes are still those that were written.

PyTorch's and NumPy's zip files hold a CRC-32 of every record, which torch.load does not look at. Files of ours hold one
of the whole file in their header: of its bytes with zeros in the place of the number. Safetensors of others, PyTorch's
format before 1.6, plain pickles, and zip files that PyTorch was told to write without CRCs hold none.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

FIELD = "crc32"  # of the JSON in the header's one entry
BLANK = "0" * 8  # what a writer puts there before `stamp`
CHUNK = 1 << 20
WAY_OUT = "Fetch or copy it again, or train it anew."
# as safetensors writes JSON within JSON
_NAMED = rb"\"crc32\""
_OURS = b"mae-transfer-"  # how the name of the entry begins
_STAMP = re.compile(rb"\\\"crc32\\\": \\\"([0-9a-f]{8})\\\"")


def stamp(path: Path) -> None:
    """Put the CRC-32 of a file of ours into its header, where BLANK stands."""
    with path.open("r+b") as file:
        found = _STAMP.search(_header(file))
        assert found is not None, "a header is written with FIELD"
        number = _crc(file, blank=found.start(1))
        file.seek(found.start(1))
        file.write(b"%08x" % number)


def check_stamp(path: Path, file: BinaryIO) -> None:
    """Raise ValueError where a file of ours is not what was written. One of before these checksums passes."""
    header = _header(file)
    if _OURS not in header or _NAMED not in header:
        return
    found = _STAMP.search(header)
    if found is None or int(found[1], 16) != _crc(file, blank=found.start(1)):
        raise ValueError(f"{path}: is not what was written: its checksum differs, so it is damaged. {WAY_OUT}")


def check_records(path: Path, file: BinaryIO) -> None:
    """Raise ValueError where a record of a zip file is not what was written; without any CRC nothing is checked."""
    try:
        with zipfile.ZipFile(file) as archive:
            held = archive.infolist()
            if not any(record.CRC for record in held):
                return  # torch.serialization.set_crc32_options(False)
            for record in held:
                with archive.open(record) as opened:
                    while opened.read(CHUNK):
                        pass
    # an encrypted or oddly compressed record is one whose flags are damaged
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: is not what was written, so it is damaged ({error}). {WAY_OUT}") from error


def _header(file: BinaryIO) -> bytes:
    file.seek(0)
    length = file.read(8)
    return length + file.read(int.from_bytes(length, "little"))  # a length beyond the file gives the file


def _crc(file: BinaryIO, *, blank: int) -> int:
    """Return the CRC-32 of the file with BLANK at byte `blank`."""
    file.seek(0)
    number = zlib.crc32(file.read(blank) + BLANK.encode())
    file.seek(blank + len(BLANK))
    while chunk := file.read(CHUNK):
        number = zlib.crc32(chunk, number)
    return number
