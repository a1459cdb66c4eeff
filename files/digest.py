"""The SHA-256 of files, without holding them in memory, and what is written beside a file of its own digest."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from files.writing import replacing

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


def write_beside(path: Path) -> Path:
    """Write `<path>.sha256`, which `sha256sum -c` takes too, and return its path."""
    beside = _beside(path)
    with replacing(beside) as temporary:
        temporary.write_text(f"{file_sha256(path)}  {path.name}\n", encoding="utf-8")
    return beside


def check_beside(path: Path) -> None:
    """Raise ValueError where `<path>.sha256` is there and is not of the file; OSError where one cannot be read."""
    beside = _beside(path)
    if not beside.exists():
        return
    words = beside.read_bytes().split()
    if not words or words[0] != file_sha256(path).encode():
        raise ValueError(
            f"{path}: is not the file whose digest is in {beside.name} beside it; it is damaged, or was edited. Make "
            f"it again or restore it; if the edit is meant, remove {beside.name}."
        )


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
