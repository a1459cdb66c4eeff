"""Which file a name means and which it may become: inside its folder, unlike every other, never an input."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

LONGEST = 255  # bytes of one name on the usual file systems
DIGEST = 8  # hexadecimal digits that tell names apart


def inside(folder: Path, name: str, *, source: Path) -> Path:
    """Return the path of `name`, which the file `source` gives, below `folder`.

    Raises ValueError where it leads out of the folder: an absolute path, `..`, or a link to elsewhere.
    """
    plain = isinstance(name, str) and name != "" and "\0" not in name
    absolute = plain and (PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive))
    if plain and not absolute and ".." not in PurePosixPath(name).parts:
        path = folder / name
        with_links, root = os.path.realpath(path), os.path.realpath(folder)
        if os.path.commonpath([with_links, root]) == root:
            return path
    raise ValueError(
        f"{source}: names {name!r}, which is not a path inside {folder}; a file that is read from or written to by the "
        "word of another file must lie in its folder."
    )


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file, or would when they are written; links are followed."""
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ValueError where an output would be written over an input. To be called before anything is written."""
    read = {_place(path): path for path in inputs}
    for path in outputs:
        if (taken := read.get(_place(path))) is not None:
            raise ValueError(f"{path}: would be written over {taken}, which is read; give another --out.")


def distinct_stems(stems: Sequence[str], identities: Sequence[str], *, endings: Sequence[str] = (".png",)) -> list[str]:
    """Return a file stem for each of N things such that stem + ending is another name for every thing and ending.

    `stems` is what they would like to be called, `identities` what tells them apart (a path, an id). A stem is kept
    where it can be; where it is taken (also in other case or another Unicode normal form, which some file systems hold
    for the same), too long for a name, or no name at all, a digest of the identity is added.
    """
    taken: set[str] = set()
    chosen = []
    for wanted, identity in zip(stems, identities, strict=True):
        for stem in _candidates(_cleaned(wanted), identity, most=LONGEST - max(len(os.fsencode(e)) for e in endings)):
            names = {_folded(stem + ending) for ending in endings}
            if not names & taken:
                break
        taken |= names
        chosen.append(stem)
    return chosen


def _candidates(stem: str, identity: str, *, most: int) -> Iterable[str]:
    """Yield the stem as wanted where it fits into `most` bytes, then with a digest of the identity, without an end."""
    if stem and len(os.fsencode(stem)) <= most:
        yield stem
    number = 0
    while True:
        text = os.fsencode(identity) + (b"\0%d" % number if number else b"")
        digest = hashlib.sha256(text).hexdigest()[:DIGEST]
        yield f"{_shortened(stem, most - DIGEST - 1)}-{digest}" if stem else digest
        number += 1


def _cleaned(stem: str) -> str:
    """Return a stem that is one name: no separators, no control characters, no dots at its ends."""
    return "".join("_" if char in '/\\:*?"<>|' or ord(char) < 32 else char for char in stem).strip(". ")


def _shortened(text: str, most: int) -> str:
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _place(path: Path) -> tuple[int, int] | str:
    """Return what is equal for paths to one file."""
    try:
        stat = path.stat()
    except OSError:
        return os.path.realpath(path)
    return stat.st_dev, stat.st_ino
