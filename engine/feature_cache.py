"""Features of a frozen ViT on disk: arrays that are memory-mapped, and a list of images that vouches for them.

A folder is named by a digest of all that the features depend on, so it is made once and never changed. The list is
written last, with the checksum of every array (crc32, 1 to 3 GB a second).
"""

import hashlib
import json
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from files.locking import locked
from files.parsing import read_json
from files.writing import replacing

IMAGES = "images.json"
T = TypeVar("T")


def digest_of(parts: Collection[str], images: Iterable[tuple[str, Path]]) -> str:
    """Return 16 hexadecimal digits of texts, and of images by a line on each, their size and time of change.

    To read the images would cost what is saved.
    """
    digest = hashlib.sha256(json.dumps([*parts]).encode())
    for line, path in images:
        stat = path.stat()
        digest.update(f"{line} {stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()[:16]


def cached(folder: Path, *, read: Callable[[], T], make: Callable[[], None]) -> T:
    """Return what `read` finds in `folder`, made first where it is not there yet.

    What is stopped half-way leaves nothing that is taken for whole; while another process makes the same, this one
    waits for it. What `read` refuses (ValueError, OSError) is made again, with a warning.
    """
    if (found := _whole(folder, read, warn=False)) is None:
        with locked(folder, wait=True) as note:
            if note is not None:
                warnings.warn(note, stacklevel=3)
            if (found := _whole(folder, read, warn=True)) is None:
                make()
                found = read()
    return found


def write_list(folder: Path, values: Mapping[str, Any], arrays: Collection[str]) -> None:
    """Write the list of images, `values`, with the checksums of the arrays, which are whole by now."""
    listed = {**values, **{_crc_of(name): file_crc32(folder / name) for name in arrays}}
    with replacing(folder / IMAGES) as temporary:
        temporary.write_text(json.dumps({**listed, "crc32": _values_crc32(listed)}), encoding="utf-8")


def read_list(folder: Path, kinds: Mapping[str, type], arrays: Collection[str]) -> dict[str, Any]:
    """Return the values of the list, which have these types.

    Raises OSError, and ValueError where list or arrays are not as they were written.
    """
    path = folder / IMAGES
    listed = read_json(path, surrogates=True)  # names of files may be no UTF-8
    wanted = {**kinds, **dict.fromkeys(map(_crc_of, arrays), int), "crc32": int}
    if not isinstance(listed, dict) or {key: type(value) for key, value in listed.items()} != wanted:
        raise ValueError(f"{path}: not the list of images of cached features, or one without checksums.")
    if listed.pop("crc32") != _values_crc32(listed):
        raise ValueError(f"{path}: its content does not have the checksum that it was written with.")
    for name in arrays:
        if listed.pop(_crc_of(name)) != file_crc32(folder / name):
            raise ValueError(f"{folder / name}: its content does not have the checksum that it was written with.")
    return listed


def open_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return an array that is read as it is used. Raises ValueError for another shape or type."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape} for {np.dtype(dtype)} of {shape}.")
    return array


def file_crc32(path: Path) -> int:
    """Return the checksum of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return crc


def _whole(folder: Path, read: Callable[[], T], *, warn: bool) -> T | None:
    """Return what is in `folder`, or None where there is nothing, or something else than was written."""
    if not (folder / IMAGES).is_file():
        return None
    try:
        return read()
    except (ValueError, OSError) as error:
        if warn:
            warnings.warn(f"cached features not usable, extracted again: {error}", stacklevel=4)
        return None


def _crc_of(name: str) -> str:
    return f"{Path(name).stem}_crc32"


def _values_crc32(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
