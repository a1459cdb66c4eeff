"""Files in uncompressed tar archives (shards), read at any place without unpacking, as WebDataset lays them out.

The headers are read once, for where each file begins. What was found of CACHED_FROM files and more is kept in the cache
folder (`cache_folder`) and is valid as long as no shard changes its size or time; nothing is written beside the data.
Axis letters: N files, by shard and then as they lie in it.
"""

import hashlib
import json
import os
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from files.naming import SYSTEM, cache_folder, system_part
from files.writing import replacing

ARCHIVES = (".tar",)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
VERSION = 2  # of the kept index; changes with its layout or with what is taken from a shard
CACHED_FROM = 50_000  # files: fewer are found within seconds
AT_ONCE = 2**20  # bytes
MOST_OPEN = 128  # shards that a process keeps open; more could exceed its limit of open files


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """Where the wanted files lie: arrays, which loader processes share."""

    shard_N: np.ndarray
    """Number of the shard."""
    offset_N: np.ndarray
    """First byte in it."""
    size_N: np.ndarray
    """Bytes."""
    name: np.ndarray
    """All names one after another, bytes of UTF-8."""
    end_N: np.ndarray
    """Where each name ends in that."""
    others: dict[str, int]
    """How many files of other endings there are, links, and files that are hidden or the system's."""

    def name_of(self, number: int) -> str:
        """Return the name of a file in its shard."""
        begin = int(self.end_N[number - 1]) if number else 0
        return self.name[begin : int(self.end_N[number])].tobytes().decode("utf-8", "surrogateescape")


class Shards:
    """Tar files and where the wanted files in them lie. Reading is safe after a fork and in several processes."""

    def __init__(self, paths: Sequence[Path], index: Index) -> None:
        """`index` is of these paths."""
        self.paths = tuple(paths)
        self.index = index
        self._open: OrderedDict[int, int] = OrderedDict()  # shard -> descriptor, the last used last

    def __len__(self) -> int:
        """Number of files."""
        return len(self.index.size_N)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the descriptors to the process that they are of."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        """Close the descriptors."""
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def place(self, number: int) -> tuple[Path, str]:
        """Return the shard of a file and the file's name in it."""
        return self.paths[int(self.index.shard_N[number])], self.index.name_of(number)

    def read(self, number: int) -> bytes:
        """Return the content of a file. Raises OSError where the shard is gone or has become shorter."""
        shard, offset = int(self.index.shard_N[number]), int(self.index.offset_N[number])
        size = int(self.index.size_N[number])
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.paths[shard], os.O_RDONLY)
        # pread: a descriptor that was open before a fork has one position for both processes
        content = os.pread(self._open[shard], size, offset)
        if len(content) < size:
            raise OSError(f"{self.paths[shard].name} ends after {len(content)} of its {size} bytes")
        return content


def open_shards(paths: Sequence[Path], endings: tuple[str, ...]) -> tuple[Shards, tuple[str, ...]]:
    """Return the files of the given endings in some tar files, and what people should know of their index.

    Raises ValueError for a shard that is compressed, truncated, damaged, or names a file twice.
    """
    source = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    stamp = {"version": VERSION, "endings": endings, "shards": source}
    digest = hashlib.sha256(json.dumps([endings, [name for name, *_ in source]]).encode()).hexdigest()
    kept = cache_folder() / f"shards-{digest[:24]}.npz"
    notes: tuple[str, ...] = ()
    if kept.is_file():
        try:
            if (index := _read_index(kept, stamp)) is not None:
                return Shards(paths, index), ()
            notes = (f"shards changed since they were indexed; indexed again ({kept})",)
        except Exception as error:  # NumPy and zipfile raise what a damaged file leads them to
            notes = (f"index of the shards not usable, made again: {kept}: {type(error).__name__}: {error}",)
    index = _index(paths, endings)
    if len(index.size_N) >= CACHED_FROM:
        try:
            _write_index(kept, index, stamp)
        except OSError as error:
            notes = (*notes, f"index of the shards not kept, so that every start makes it again: {error}")
    return Shards(paths, index), notes


def ending_of(name: str) -> str:
    """Return the ending that a file is counted under."""
    return Path(name).suffix.lower() or "no ending"


def _index(paths: Sequence[Path], endings: tuple[str, ...]) -> Index:
    shards, offsets, sizes, ends = [], [], [], []
    text = bytearray()
    others: Counter[str] = Counter()
    for number, path in enumerate(paths):
        found: set[str] = set()
        for member_name, offset, size in _members(path, endings, others):
            name = member_name.removeprefix("./")
            if name in found:
                raise ValueError(f"{path}: holds {name!r} twice; pack the shard again, each file under its own name.")
            found.add(name)
            shards.append(number)
            offsets.append(offset)
            sizes.append(size)
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
    return Index(
        shard_N=np.array(shards, dtype=np.int32),
        offset_N=np.array(offsets, dtype=np.int64),
        size_N=np.array(sizes, dtype=np.int64),
        name=np.frombuffer(bytes(text), dtype=np.uint8),
        end_N=np.array(ends, dtype=np.int64),
        others=dict(others),
    )


def _members(path: Path, endings: tuple[str, ...], others: Counter[str]) -> list[tuple[str, int, int]]:
    """Return name, first byte and size of the files of the given endings; `others` counts the rest, by ending."""
    wanted: list[tuple[str, int, int]] = []
    holed = None
    length, end = path.stat().st_size, 0
    try:
        with tarfile.open(path, "r:") as shard:
            while (member := shard.next()) is not None:
                if member.size < 0 or shard.offset <= end:  # it would be read for ever
                    raise tarfile.ReadError(f"a size of {member.size} bytes at byte {end:,}")
                if shard.offset > length + tarfile.BLOCKSIZE or (member.isreg() and _beyond(member, length)):
                    raise tarfile.ReadError(f"{member.name!r} ends beyond its {length:,} bytes")
                end = shard.offset
                shard.members.clear()  # type: ignore[attr-defined]  # it would hold every header that was read
                if member.issym() or member.islnk():
                    others["links"] += 1
                elif member.isreg() and system_part(member.name) is not None:
                    others[SYSTEM] += 1
                elif member.isreg() and not member.name.lower().endswith(endings):
                    others[ending_of(member.name)] += 1
                elif member.issparse():
                    holed = holed or member.name
                elif member.isreg():
                    wanted.append((member.name, member.offset_data, member.size))
            end = shard.offset
    except OSError:
        raise
    except Exception as error:  # damaged numbers and texts lead tarfile to more than its own errors
        raise ValueError(
            f"{path}: no whole uncompressed tar file ({str(error) or type(error).__name__}); copy it again if it was "
            "cut off, and if it is compressed, decompress it first (`gunzip`, `zstd -d`, ...)."
        ) from error
    if holed is not None:
        raise ValueError(f"{path}: {holed!r} is stored with holes; pack it again without --sparse.")
    with path.open("rb") as file:  # tarfile takes any block that is no header for the end
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        rest = next((place for place in range(file.tell(), length, AT_ONCE) if any(file.read(AT_ONCE))), None)
    if len(block) < tarfile.BLOCKSIZE:
        raise ValueError(
            f"{path}: cut off: it ends after {path.stat().st_size:,} bytes without the empty block that closes a tar "
            "file; copy it again, or pack it again if it is whole."
        )
    if any(block):
        raise ValueError(f"{path}: damaged: byte {end:,} of {path.stat().st_size:,} begins no file; copy it again.")
    if rest is not None:
        raise ValueError(
            f"{path}: goes on after the empty block at byte {end:,} that closes a tar file: two archives one behind "
            "the other, or a damaged one; unpack it with `tar -xif` and pack it again, or copy it again."
        )
    return wanted


def _beyond(member: tarfile.TarInfo, length: int) -> bool:
    return not member.issparse() and member.offset_data + member.size > length


def _write_index(path: Path, index: Index, stamp: dict[str, Any]) -> None:
    header = np.frombuffer(json.dumps({**stamp, "others": index.others}).encode(), dtype=np.uint8)
    arrays = {name: value for name, value in vars(index).items() if name != "others"}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, header=header, **arrays)


def _read_index(path: Path, stamp: dict[str, Any]) -> Index | None:
    """Return what `_write_index` wrote, None where it is of other shards than `stamp` says."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        header: dict[str, Any] = json.loads(arrays["header"].tobytes())
        others: dict[str, int] = header.pop("others")
        if header != json.loads(json.dumps(stamp)):
            return None
        index = Index(others=others, **{name: arrays[name] for name in arrays.files if name != "header"})
    _check_index(index, [size for _, size, _ in stamp["shards"]])
    return index


def _check_index(index: Index, lengths: Sequence[int]) -> None:
    """Raise ValueError where the arrays do not fit one another or shards of these lengths."""
    arrays = (index.shard_N, index.offset_N, index.size_N, index.end_N)
    if any(array.ndim != 1 or array.dtype.kind != "i" or len(array) != len(index.size_N) for array in arrays):
        raise ValueError("its arrays are not of one length")
    ends = np.concatenate([[0], index.end_N])
    if (np.diff(ends) < 0).any() or ends[-1] != len(index.name) or index.name.dtype != np.uint8:
        raise ValueError("its names do not fit their ends")
    shard_N, end_N = index.shard_N, index.offset_N + index.size_N
    inside = len(shard_N) == 0 or (shard_N.min() >= 0 and shard_N.max() < len(lengths))
    if (
        not inside
        or (index.offset_N < 0).any()
        or (index.size_N < 0).any()
        or (end_N > np.array(lengths)[shard_N]).any()
    ):
        raise ValueError("its files do not lie in their shards")
    if not all(isinstance(count, int) for count in index.others.values()):
        raise ValueError("its other files are not counted")
