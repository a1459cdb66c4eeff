"""Files that two lists have in common: by where they lie, links followed, or by their content."""

import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from files.digest import file_sha256


def shared_paths(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """Return the paths of `b` that lead to a file of `a`, linked folders followed; links to single files are not."""
    place = cache(os.path.realpath)
    seen = {(place(os.path.dirname(path)), os.path.basename(path)) for path in a}
    return [path for path in b if (place(os.path.dirname(path)), os.path.basename(path)) in seen]


def same_content(a: Iterable[Path], b: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Return pairs of a file of `a` and one of `b` with the same bytes; files of one size alone are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in a:
        if (size := _size(path)) is not None:
            by_size[size].append(path)
    digest = cache(_digest)
    found = []
    for path in b:
        size = _size(path)
        for other in by_size.get(size, []) if size else []:  # empty files are no images
            if digest(other) == digest(path):
                found.append((other, path))
                break
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # said where it is read
        return None


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return str(path)
