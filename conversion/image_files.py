"""Finding the image files of a foreign data set: all below a folder, or one by its name without the ending."""

import os
from collections.abc import Iterator
from pathlib import Path

from detection.data.defects import Tally
from engine.images.reading import EXTENSIONS
from files.naming import SYSTEM, system_part


def images_below(folder: Path, tally: Tally, *, ignore: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of the images below a folder, sorted, with forward slashes; links to folders are followed.

    Other files are counted, but for endings to `ignore`.
    """
    for name in files_below_sorted(folder):
        ending = os.path.splitext(name)[1].lower()
        if (part := system_part(name)) is not None:
            tally.add(f"files {SYSTEM}, left out", part)
        elif ending in EXTENSIONS:
            yield name
        elif ending not in ignore:
            tally.add("files of no image format that is read, left out", name)


def files_below_sorted(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, sorted, with forward slashes."""
    found = []
    for here, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(here, folder).replace(os.sep, "/")
        found += [name if below == "." else f"{below}/{name}" for name in names]
    return sorted(found)


class ImagesByStem:
    """The images of a folder by their names without the ending; listed once, since asking one by one takes minutes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file()) if folder.is_dir() else []
        self._names = {Path(name).stem: name for name in names if name.lower().endswith(EXTENSIONS)}

    def find(self, stem: str, *, name: str = "") -> Path | None:
        """Return the image of that stem or, where there is none, of the whole name; None for neither."""
        found = self._names.get(stem)
        if found is None and name and self._names.get(Path(name).stem) == name:
            found = name
        return None if found is None else self._folder / found
