"""Any weight file as plain tensors, by its name in the file; reading never executes code of the file.

safetensors, PyTorch's zip and legacy formats and NumPy's .npz are read as data. A pickle is a program: one is run only
where the caller trusts the file's origin. Nothing is renamed, cast or resized here. Tensors of safetensors and PyTorch
zip files are views of the mapped file, so the file must not be rewritten in place while they are used (replacing it by
a rename is safe).
"""

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from backbones.weights.address import way_out
from backbones.weights.checksum import check_records, check_stamp
from backbones.weights.compared import compared_digest
from backbones.weights.digest import begin_check, begin_digest, version_of
from backbones.weights.values import faults_of

Kind = Literal["safetensors", "pytorch", "numpy", "pickle"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz", ".pkl")
# Weights do not compress: 1.1 to 1 is usual. The floor lets through small files of zeros.
MOST_EXPANSION = 20
EXPANSION_FLOOR = 64 << 20  # bytes

ZIP = b"PK\x03\x04"
# The first bytes of PyTorch's format before 1.6: a pickled number, 0x1950a86a20f9469cfc6c.
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")

# What training checkpoints hold beside tensors: MAE's, DeiT's and BEiT's arguments (paths among them where submitit
# started the run), NumPy numbers, mmengine's log. None of it is wanted, so _Ignored takes the place of each.
_IGNORED_GLOBALS = (
    "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # how a HistoryBuffer names its methods; _Ignored looks up nothing
    *(f"numpy.{name}" for name in ("dtype", "ndarray")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"{module}.{name}Path" for module in ("pathlib", "pathlib._local") for name in ("Posix", "Windows")),
)


class _Ignored:
    """Takes the place of an object that is no tensor: accepts any arguments and any state and keeps none."""

    def __init__(self, *_: object) -> None:
        """Keep nothing."""

    def __setstate__(self, _: object) -> None:
        """Keep nothing."""


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The tensors of one file and what else is known of it."""

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    """Names as in the file, of the entry that was taken; any of the four IEEE widths, and integer buffers."""
    entry: str
    """The nested dict that the tensors were in, as `model`; empty where they lie at the top level."""
    others: tuple[str, ...]
    """Names of what else lies at the top level: `optimizer`, `epoch`, `args`."""
    digest: Callable[[], str] = field(repr=False)
    """Gives the SHA-256 of the file, which a thread computes from when the file has been read."""
    check: Callable[[], None] = field(repr=False)
    """Waits for a thread that compares the bytes with the checksums in the file; to be called before tensors are used.
    Raises ValueError where they differ."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The header of a safetensors file."""

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the file; waits until it is computed."""
        return self.digest()


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """All that a weight file holds, before it is known which entry the weights are in."""

    path: Path
    kind: Kind
    content: object
    digest: Callable[[], str] = field(repr=False)
    check: Callable[[], None] = field(repr=False)
    metadata: dict[str, str]


def read_weight_file(
    path: Path, *, entries: Sequence[str] = ("model", "state_dict", "module"), trust_pickle: bool = False
) -> WeightFile:
    """Return the tensors of a weight file in any known format, which its first bytes decide and not its suffix.

    `entries` are the nested dicts to look for, in order; without any, the top level is taken if tensors lie there.
    With `trust_pickle` a file that needs it is unpickled, which runs whatever code it holds.

    Raises FileNotFoundError, and ValueError where the file is damaged, no weight file, unsafe, or holds values that no
    weights have (NaN, infinity, complex, quantised).
    """
    return take_weights(open_weight_file(path, trust_pickle=trust_pickle), entries=entries)


def open_weight_file(path: Path, *, trust_pickle: bool = False) -> OpenedFile:
    """Return what the file holds, read once. Raises as `read_weight_file` but for the values."""
    _check_is_file(path)
    metadata: dict[str, str] = {}
    content: object
    with path.open("rb") as opened:
        kind = _kind(path)
        check = begin_check(opened, partial(_compare, path))
        if kind == "safetensors":
            content, metadata = _read_safetensors(path)
        elif kind == "numpy":
            content = _read_npz(path)
        else:
            content = (_read_pytorch if kind == "pytorch" else _read_pickle)(path, trust_pickle, check)
        if version_of(path.stat()) != version_of(os.fstat(opened.fileno())):
            raise ValueError(
                f"{path}: was replaced or changed while it was read. Wait until it is whole, then read it."
            )
        known = compared_digest(path, version_of(os.fstat(opened.fileno())))
        digest = begin_digest(opened, after=check) if known is None else partial(str, known)
        return OpenedFile(path, kind, content, digest, check, metadata)


def take_weights(file: OpenedFile, *, entries: Sequence[str]) -> WeightFile:
    """Return the tensors of the first of the entries that is there. Raises ValueError as `read_weight_file`."""
    entry, taken, others = _take_entry(file.path, file.content, entries)
    if wrong := [repr(name) for name in taken if not isinstance(name, str)]:
        raise ValueError(f"{file.path}: names of tensors must be strings, and {_some(wrong)} are not.")
    taken = {name: tensor.detach() for name, tensor in taken.items()}
    faults = faults_of(taken, _stored_sizes(file.path) if file.kind == "pytorch" else None)
    if faults:
        shown = "; ".join(f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items())
        raise ValueError(
            f"{file.path}: has tensors that no backbone can take: {shown}. Take another copy of the weights."
        )
    return WeightFile(file.path, file.kind, taken, entry, others, file.digest, file.check, file.metadata)


def _compare(path: Path, file: BinaryIO) -> None:
    """Raise ValueError where the file is not what its own checksums say, if it has any."""
    head = file.read(9)
    if head.startswith(ZIP):
        check_records(path, file)
    elif head[8:9] == b"{":  # safetensors, whose first byte, of a length, may be a pickle's
        check_stamp(path, file)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        held = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
        raise ValueError(
            f"{path}: is a folder, and a weight file is needed. "
            + (f"Weight files in it: {_some(held)}." if held else f"No file in it ends with {', '.join(SUFFIXES)}.")
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Give the path of a weight file ({', '.join(SUFFIXES)}).")


def _kind(path: Path) -> Kind:
    """Return the format that the first bytes show. Raises ValueError that says what else the file is."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(
            f"{path}: is empty (0 bytes), so a download or a copy of it failed. Fetch it again.{way_out(path)}"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(ZIP):
        return _zip_kind(path, size)
    if head[:1] == b"\x80" and head[2:].startswith(_LEGACY_MAGIC):
        return "pytorch"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80" and head[1] <= pickle.HIGHEST_PROTOCOL:
        return "pickle"
    raise ValueError(f"{path}: is no weight file: {_what_it_is(head)}{way_out(path)}")


def _what_it_is(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it holds a web page, so the download got an error or a login page. Fetch it again from the direct link."
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer of a few lines. Run `git lfs pull` in that repository to fetch the weights."
    if head.startswith(b"\x93NUMPY"):
        return "it is one NumPy array (.npy). Save the arrays by name with numpy.savez."
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z")) or head[257:262] == b"ustar":
        return "it is an archive. Unpack it and give the file inside."
    return (
        f"it begins with {head[:8]!r}, which is none of safetensors, PyTorch, .npz and pickle; if the suffix says "
        "otherwise, the file is damaged. Fetch it again."
    )


def _zip_kind(path: Path, size: int) -> Kind:
    """Return whose zip file it is, judged by its directory alone. Raises ValueError for damaged files and zip bombs."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.infolist()
    except Exception as error:  # as below
        raise _damaged(path, error) from error
    unpacked = sum(record.file_size for record in held)
    limit = max(EXPANSION_FLOOR, MOST_EXPANSION * size)
    if unpacked > limit:
        raise ValueError(
            f"{path}: its {size} bytes would unpack to {unpacked}; the limit is {limit} ({MOST_EXPANSION} times the "
            f"file, and {EXPANSION_FLOOR >> 20} MiB at least), which no weights reach. It may be a zip bomb."
        )
    names = [record.filename for record in held]
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{path}: is a TorchScript program. Save torch.jit.load(FILE).state_dict() and give that.")
    if any(name.endswith("/data.pkl") for name in names):
        return "pytorch"
    if names and all(name.endswith(".npy") for name in names):
        return "numpy"
    raise ValueError(
        f"{path}: is a zip archive that neither PyTorch nor NumPy wrote; it holds {_some(names)}. "
        "Unpack it and give the weight file inside."
    )


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"{path}: cannot be read to its end ({path.stat().st_size} bytes; {reason}). It is truncated or damaged: fetch "
        f"it again and compare its size and checksum with the publisher's.{way_out(path)}"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # others' parsers raise anything on damaged bytes: of types, of attributes, of versions
        raise _damaged(path, error) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # as above
        if "allow_pickle" in str(error):
            raise ValueError(f"{path}: holds pickled objects, which can run code. Save plain arrays alone.") from error
        raise _damaged(path, error) from error
    return {name: _as_tensor(path, name, array) for name, array in arrays.items()}


def _as_tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=False))
    except TypeError as error:
        raise ValueError(f"{path}: {name} is of dtype {array.dtype}, which is no number. Remove it.") from error


def _read_pytorch(path: Path, trust_pickle: bool, check: Callable[[], None]) -> object:
    ignored: list[Any] = [(_Ignored, name) for name in _IGNORED_GLOBALS]
    misnamed = path.suffix == ".safetensors"  # torch.load goes by the suffix of a path, and maps nothing but paths
    mmap = not misnamed and _stored_sizes(path) is not None

    def load(weights_only: bool) -> object:
        with path.open("rb") as file:
            return torch.load(file if misnamed else path, map_location="cpu", weights_only=weights_only, mmap=mmap)

    try:
        with torch.serialization.safe_globals(ignored):
            return load(True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise _damaged(path, error) from error
        if not trust_pickle:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            needs = f"it needs {found.group(1)}" if found else str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{path}: holds more than tensors and plain values: {needs}. Loading that can run code of the file. "
                "Ask its publisher for a plain state_dict or safetensors; --trust-pickle is only for files you trust."
            ) from error
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    check()  # damage must not run
    return _run_pickle(path, lambda: load(False))


def _stored_sizes(path: Path) -> set[int] | None:
    """Return the sizes of a zip file's records; None for what cannot be mapped: legacy files, compressed records."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    return {r.file_size for r in records} if all(r.compress_type == zipfile.ZIP_STORED for r in records) else None


def _read_pickle(path: Path, trust_pickle: bool, _: Callable[[], None]) -> object:
    if not trust_pickle:
        raise ValueError(
            f"{path}: is a pickle, and unpickling can run any code that the file holds. "
            "Pass --trust-pickle only for a file of a trusted origin (detectron2's model zoo publishes such files)."
        )

    def load() -> object:
        with path.open("rb") as file:
            # latin1: detectron2's files hold byte strings of Python 2
            return pickle.load(file, encoding="latin1")

    return _as_tensors(path, _run_pickle(path, load))


def _run_pickle(path: Path, load: Callable[[], object]) -> object:
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path}: needs code that is not here ({error}). Load it where it was made and save its state_dict alone."
        ) from error
    except Exception as error:  # the pickle is a program of others: it may raise anything
        raise _damaged(path, error) from error


def _as_tensors(path: Path, value: object, name: str = "") -> object:
    """Return the value with arrays, also those in nested dicts, as tensors."""
    if isinstance(value, Mapping):
        return {key: _as_tensors(path, nested, str(key)) for key, nested in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _as_tensor(path, name, value)
    return value


def _take_entry(path: Path, content: object, entries: Sequence[str]) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Return the name of the entry, its tensors and the names of what else is there, or raise ValueError."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, and a dict of tensors is needed. "
            "Save the model's state_dict() instead."
        )
    nested = {str(name): value for name, value in content.items() if _tensor_count(value)}
    for entry in entries:
        if entry in nested:
            wrong = [str(name) for name, value in nested[entry].items() if not isinstance(value, Tensor)]
            if wrong:
                raise ValueError(
                    f"{path}: {entry} holds {len(wrong)} values that are no tensors: {_some(wrong)}. "
                    "Save a plain state_dict(), of names and tensors alone."
                )
            return entry, nested[entry], tuple(str(name) for name in content if name != entry)
    flat = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if flat and not nested:
        return "", flat, tuple(str(name) for name in content if name not in flat)
    held = _some([f"{name} ({_describe(value)})" for name, value in content.items()], most=12)
    if nested:
        absent = f"none of {', '.join(entries)} is in it" if entries else "no tensor lies at its top level"
        raise ValueError(
            f"{path}: {absent}. It holds {held}. The weights could be "
            f"{' or '.join(nested)}; declare the source that has them there, or save that entry alone."
        )
    raise ValueError(
        f"{path}: holds no tensors where weights lie. It holds {held or 'nothing'}. Save the model's state_dict() "
        "at the top level, or in an entry of its own."
    )


def _tensor_count(value: object) -> int:
    return sum(isinstance(v, Tensor) for v in value.values()) if isinstance(value, Mapping) else 0


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if count := _tensor_count(value):
        return f"{count} tensors"
    return "object" if isinstance(value, _Ignored) else type(value).__name__


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
