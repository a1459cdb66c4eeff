"""The SHA-256 of files, without holding them in memory; the digest that is kept beside a file, or within JSON.

A flipped bit or an edit is found when what has such a digest is read again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from files.writing import replacing

BLOCK = 1 << 20  # bytes
SEAL = "sha256"  # the key of JSON's own digest


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


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the digest of what JSON makes of them."""
    return {**values, SEAL: _digest_of(values)}


def unsealed(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the values of file `name` without their digest, unchecked where they have none.

    Raises ValueError where the digest is of another content.
    """
    rest = {key: value for key, value in values.items() if key != SEAL}
    if SEAL in values and values[SEAL] != _digest_of(rest):
        raise ValueError(
            f"{name}: its content is not what was written (its {SEAL} is of another); it is damaged, or was edited. "
            f"Restore it from a copy or make it again; if the edit is meant, remove its {SEAL!r}."
        )
    return rest


def _digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
