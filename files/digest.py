"""The SHA-256 of files, without holding them in memory."""

import hashlib
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20  # bytes


def sha256_of(file: BinaryIO) -> str:
    """Return the hexadecimal SHA-256 of the rest of an opened file."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return sha256_of(file)
