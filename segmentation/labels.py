"""Label maps of the ADE20K layout: one channel of numbers, 0 unlabelled, 1 to N the classes, 255 ignored."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engine.images import UnreadableImageError

IGNORED = 255  # mmseg's ignore_index, and what 0 becomes
MOST_CLASSES = 254  # 8-bit labels after 0 and 255 are taken
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


@dataclass(frozen=True)
class LabelCensus:
    """What a set of label maps holds."""

    maps: int
    highest: int
    """Highest label, 255 left out; 0 where nothing is labelled."""
    highest_path: Path | None
    """The first map that holds it."""
    present: frozenset[int]
    """Labels found, 0 and 255 left out."""
    unreadable: tuple[str, ...]
    """Messages of maps that cannot be decoded."""


def read_label_map(path: Path) -> np.ndarray:
    """Return the labels as stored, (H, W) int32.

    Raises UnreadableImageError for a broken file and ValueError for colour images.
    """
    try:
        with Image.open(path) as image:
            image.load()
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(path), str(error) or type(error).__name__) from error
    if mode not in INDEX_MODES:
        raise ValueError(
            f"{path}: a label map of mode {mode} ({len(image.getbands())} channels); it must have one, "
            "which holds class numbers (0 unlabelled, 1 to N). Convert colour-coded maps to numbers first."
        )
    return values.astype(np.int32)


def check_labels(label_HW: np.ndarray, path: Path, classes: int) -> None:
    """Raise ValueError where a label is above the number of classes."""
    known = label_HW[label_HW != IGNORED]
    if known.size:
        check_label(int(known.max()), path, classes)


def check_label(label: int, path: Path, classes: int) -> None:
    """Raise ValueError where the highest label of a map is above the number of classes."""
    if label > classes:
        raise ValueError(
            f"{path}: holds label {label}, but the data set has {classes} classes (labels 1 to {classes}; "
            "0 and 255 are ignored). Mend the map, or list the classes in objectInfo<N>.txt."
        )


def from_zero(label_HW: np.ndarray) -> np.ndarray:
    """Return uint8 labels with classes from 0 and 255 for what is ignored: mmseg's `reduce_zero_label`."""
    ignored = (label_HW == 0) | (label_HW == IGNORED)
    return np.where(ignored, IGNORED, label_HW - 1).astype(np.uint8)


def take_census(paths: Iterable[Path]) -> LabelCensus:
    """Return what the maps hold. Raises ValueError for colour images."""
    maps, highest, highest_path = 0, 0, None
    present: set[int] = set()
    unreadable = []
    for path in paths:
        maps += 1
        try:
            found = set(np.unique(read_label_map(path)).tolist()) - {0, IGNORED}
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        present |= found
        if found and max(found) > highest:
            highest, highest_path = max(found), path
    return LabelCensus(maps, highest, highest_path, frozenset(present), tuple(unreadable))
