"""PASCAL VOC's lists of images: which image and label map each name stands for."""

import os
import re
from collections import Counter
from pathlib import Path

from engine.images.reading import EXTENSIONS
from files.naming import files_below, inside, nearest
from files.parsing import read_text
from segmentation.data.pairs import LABEL_EXTENSIONS, Pair, check_folders, check_partners, some

IMAGES = "JPEGImages"


def voc_pairs(root: Path, split: str) -> list[Pair]:
    """Return the images that a list names, each once, with their label maps.

    Raises FileNotFoundError for a list or an image that is not there, and ValueError for a list that is damaged, for a
    name that several images have, and for images without label map.
    """
    check_folders(root, (IMAGES, "SegmentationClass", "ImageSets/Segmentation"), "voc")
    listing = _listing(root, split)
    if not listing.is_file():
        there = sorted(path.stem for path in listing.parent.glob("*.txt"))
        raise FileNotFoundError(f"{listing}: no such split; there are {some(there)}.")
    names = list(dict.fromkeys(_names(listing, root / IMAGES)))
    images = {name: image for name in names if (image := _image(root / IMAGES, name, listing)) is not None}
    labels = {name: label for name in names if os.path.isfile(label := _map(root, name))}
    if absent := [name for name in names if name not in images]:
        meant = nearest([f"{name}.jpg" for name in absent], files_below(root / IMAGES))
        raise FileNotFoundError(
            f"{listing}: {len(absent)} of {len(names)} images are missing ({some(absent)}) in {root / IMAGES}{meant}."
        )
    check_partners(images, labels, f"{IMAGES}/x.jpg", "SegmentationClass/x.*")
    return [Pair(image.name, image, labels[name]) for name, image in images.items()]


def voc_notes(root: Path, split: str) -> list[str]:
    """Return a note on the names that stand more than once in a list, if there are any."""
    counts = Counter(_names(_listing(root, split), root / IMAGES))
    twice = [name for name, count in counts.items() if count > 1]
    return (
        [f"{split}: {len(twice)} names stand more than once in the list, taken once ({some(twice)})"] if twice else []
    )


def _listing(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _image(folder: Path, name: str, listing: Path) -> Path | None:
    """Return the image of a name: the .jpg, or the file of another format that alone has it; None where there is none.

    Raises ValueError where several others have it.
    """
    if os.path.isfile(folder / f"{name}.jpg"):
        return folder / f"{name}.jpg"
    found = [path for ending in EXTENSIONS if os.path.isfile(path := folder / f"{name}{ending}")]
    if len(found) > 1:
        raise ValueError(
            f"{listing}: {name!r} may be each of {some([path.name for path in found])} in {folder}; keep one of them."
        )
    return found[0] if found else None


def _map(root: Path, name: str) -> Path:
    """Return the label map of an image: the PNG, or another lossless file that alone is there."""
    paths = [root / "SegmentationClass" / f"{name}{ending}" for ending in LABEL_EXTENSIONS]
    return next((path for path in paths if os.path.isfile(path)), paths[0])


def _names(listing: Path, images: Path) -> list[str]:
    """Return the names that a list gives, one a line or several; a line that is an image's name as a whole is one.

    Raises ValueError for a list that is empty, leads out of the folder, or has a column of -1, 0 and 1.
    """

    def named(name: str) -> bool:
        return any(os.path.isfile(images / f"{name}{ending}") for ending in EXTENSIONS)

    names: list[str] = []
    for line in (line.strip() for line in re.split(r"\r\n|\r|\n", read_text(listing))):
        parts = line.split()
        if len(parts) > 1 and named(line):
            parts = [line]
        elif len(parts) > 1 and parts[-1] in ("-1", "0", "1") and not named(parts[-1]):
            raise ValueError(
                f"{listing}: {line[:200]!r} has a column behind the name, as VOC's lists of one class have (1 there, "
                f"-1 not there, 0 difficult); keep the names alone, of all images by `cut -d' ' -f1 {listing.name}`."
            )
        names += parts
    if not names:
        raise ValueError(f"{listing}: lists no image.")
    for name in names:
        inside(images, f"{name}.jpg", source=listing, links=True)
    return names
