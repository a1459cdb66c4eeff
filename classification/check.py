"""A look at folders of classes before they are trained on: classes, counts, and everything that is wrong with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import ImageFolder

from classification.data import open_split, same_classes, shared_note, some
from engine.images.arrays import RGB, ChannelsError
from engine.images.reading import UnreadableImageError, none_readable, size_of
from files.shared import same_content


@dataclass(frozen=True)
class ClassificationCheck:
    """What a data set holds, as lines to print."""

    lines: tuple[str, ...]
    faults: tuple[str, ...]
    """What training would stop at; empty for a data set that is as it should be."""


def check_folders(data: Path, *, val_split: str | None = "val", channels: int = RGB) -> ClassificationCheck:
    """Return what `data/train` and `data/val_split` hold, or the former alone where the latter is None.

    Images are of so many channels. Headers of all images are read, and pixels up to the first image of a split that
    can be decoded.
    """
    lines, faults = [f"{data}: folders of classes"], []
    found: list[ImageFolder] = []
    for split in ("train", val_split) if val_split else ("train",):
        try:
            folder, notes = open_split(data, split, channels)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        found.append(folder)
        counts = Counter(dict.fromkeys(folder.classes, 0))
        counts.update(folder.classes[label] for _, label in folder.samples)
        (most, highest), *_, (least, lowest) = counts.most_common()
        lines.append(f"{split}: {len(folder.samples)} images, from {lowest} ({least}) to {highest} ({most}) a class")
        lines += [f"  {note}" for note in notes]
        paths = [Path(path) for path, _ in folder.samples]
        unreadable, another = _unreadable(paths, channels)
        if unreadable:
            faults.append(f"{split}: {len(unreadable)} files cannot be read: {some(unreadable, 3)}")
        if another:
            faults.append(f"{split}: {len(another)} images of another number of channels: {some(another, 3)}")
        elif (nothing := none_readable(paths, split, channels)) is not None:
            faults.append(nothing)
    if len(found) == 2:
        try:
            lines.append(same_classes(*found))
        except ValueError as error:
            faults.append(str(error))
        lines += shared_note(*found)
        same = same_content(*([Path(path) for path, _ in folder.samples] for folder in found))
        if same:
            pairs = [f"{a} and {b}" for a, b in same]
            lines.append(f"{len(same)} images of {val_split} are in train too, byte by byte: {some(pairs, 3)}")
    lines += ["", "faults:" if faults else "no faults found", *(f"  {fault}" for fault in faults)]
    return ClassificationCheck(tuple(lines), tuple(faults))


def _unreadable(paths: Sequence[Path], channels: int) -> tuple[list[str], list[str]]:
    """Return messages of files whose headers cannot be read, and of arrays of another number of channels."""
    unreadable: list[str] = []
    another: list[str] = []
    for path in paths:
        try:
            size_of(path, channels)
        except UnreadableImageError as error:
            unreadable.append(str(error))
        except ChannelsError as error:
            another.append(str(error))
    return unreadable, another
