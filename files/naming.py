"""Which file a name means and which it may become: inside its folder, unlike every other, never an input.

And where what was read of large data is kept between runs.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

LONGEST = 255  # bytes of one name on the usual file systems
DIGEST = 8  # hexadecimal digits that tell names apart
SYSTEM = "hidden or of the system"  # how such files are counted
# folders that file systems, archivers and disk stations leave among people's files, besides those with a leading dot
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "lost+found", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information"}
)
MOST_LISTED = 500_000  # files of a folder among which a name is looked for
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,4}$")  # .jpg, and no number as in frame.0001


def inside(folder: Path, name: str, *, source: Path, links: bool = False) -> Path:
    """Return the path of `name`, which the file `source` gives, below `folder`.

    Raises ValueError where it leads out of the folder: an absolute path, `..`, or a link to elsewhere, which is named
    with its target. `links` allows the latter, for what is only read, from a folder that its owner made of links. The
    folder itself may be a link.
    """
    plain = isinstance(name, str) and name != "" and "\0" not in name
    absolute = plain and (PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive))
    if plain and not absolute and ".." not in PurePosixPath(name).parts:
        path = folder / name
        link = None if links else _link_out(folder, PurePosixPath(name).parts)
        if link is None:
            return path
        raise ValueError(
            f"{source}: {name!r} leads out of {folder}: {link} is a link to {os.path.realpath(link)}; what is "
            "read from or written to by a name in a folder must lie in it. Put the file itself there, or remove the "
            "link."
        )
    raise ValueError(
        f"{source}: names {name!r}, which is not a path inside {folder}; a file that is read from or written to by the "
        "word of another file must lie in its folder."
    )


def _link_out(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the first link on the way along `parts` that leads out of the folder, or None."""
    root, path = os.path.realpath(folder), folder
    for part in parts:
        path = path / part
        if path.is_symlink() and os.path.commonpath([os.path.realpath(path), root]) != root:
            return path
    return None


def system_part(name: str) -> str | None:
    """Return the part of a path below a folder by which it is no file of a person's, or None.

    That is a hidden folder (.ipynb_checkpoints), one of SYSTEM_FOLDERS, or ._x, which macOS puts beside a file x.
    """
    *folders, last = name.replace(os.sep, "/").split("/")
    for part in folders:
        if (part.startswith(".") and part not in (".", "..")) or part in SYSTEM_FOLDERS:
            return f"{part}/"
    return last if last.startswith("._") else None


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


def refuse_within(out: Path, folders: Iterable[Path]) -> None:
    """Raise ValueError where a file or folder `out` is one of `folders` or lies in one, links followed.

    What is written there would be taken for an input the next time. To be called before anything is written.
    """
    real = Path(os.path.realpath(out))
    above = {_place(path) for path in (real, *real.parents)}
    for folder in folders:
        if _place(folder) in above:
            raise ValueError(f"{out}: would be written into {folder}, which is read; give another --out.")


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


def nearest(missing: Sequence[str], there: Iterable[str]) -> str:
    """Return a part of a sentence that says which name was meant where one is not there, or nothing.

    `there` are names with forward slashes. A name is taken for another that differs in case, Unicode form, slashes,
    spaces around it, its ending, or the folders before it.
    """
    by_key: dict[str, list[str]] = {}
    for name in there:
        parts = name.split("/")
        for tail in {name, parts[-1]}:
            for key in {_folded(tail), _without_ending(_folded(tail))}:
                by_key.setdefault(key, []).append(name)
    meant = {name: found for name in missing if (found := _meant(name, by_key)) is not None}
    if not meant:
        return ""
    name, found = next(iter(meant.items()))
    others = f" ({len(meant)} of {len(missing)} such)" if len(missing) > 1 else ""
    return f"; for {name!r} there is {found!r}, which differs in its {_differences(name, found)}{others}"


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of the files below a folder, with forward slashes, MOST_LISTED at most: for `nearest`."""
    count = 0
    for here, _, names in os.walk(folder):
        below = os.path.relpath(here, folder).replace(os.sep, "/")
        for name in names:
            yield name if below == "." else f"{below}/{name}"
            count += 1
            if count == MOST_LISTED:
                return


def _meant(name: str, by_key: dict[str, list[str]]) -> str | None:
    parts = [part for part in _folded(name.strip()).replace("\\", "/").split("/") if part not in ("", ".")]
    tails = ["/".join(parts[begin:]) for begin in range(len(parts))]
    for key in (*tails, *(_without_ending(tail) for tail in tails)):
        found = by_key.get(key, [])
        if len(found) == 1 and found[0] != name:
            return found[0]
    return None


def _differences(name: str, found: str) -> str:
    """Return in what two names differ that `_meant` holds for one."""
    kinds = []
    plain, other = name, found
    if plain != plain.strip():
        kinds.append("spaces")
        plain = plain.strip()
    if "\\" in plain and "\\" not in other:
        kinds.append("slashes")
        plain = plain.replace("\\", "/")
    if plain.count("/") != other.count("/"):
        kinds.append("folder")
        plain, other = plain.rpartition("/")[2], other.rpartition("/")[2]
    plain, other = unicodedata.normalize("NFC", plain), unicodedata.normalize("NFC", other)
    if plain == other:
        return " and ".join(kinds or ["Unicode form (composed or decomposed accents, which look alike)"])
    if _folded(plain) != _folded(other):
        kinds.append("ending")
        plain, other = (re.sub(_ENDING.pattern, "", text, flags=re.IGNORECASE) for text in (plain, other))
    if plain != other:
        kinds.append("case")
    return " and ".join(kinds)


def _without_ending(folded: str) -> str:
    return _ENDING.sub("", folded)


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


def cache_folder() -> Path:
    """Return $MAE_TRANSFER_CACHE, or $XDG_CACHE_HOME/mae-transfer, or ~/.cache/mae-transfer."""
    if explicit := os.environ.get("MAE_TRANSFER_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mae-transfer"
