"""A look at folders of classes before they are trained on: classes, counts, and everything that is wrong with them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import ImageFolder

from classification.data import open_split, same_classes, shared_note, some
from engine.images.reading import UnreadableImageError, none_readable, upright_size
from files.shared import same_content


@dataclass(frozen=True)
class ClassificationCheck:
    """What a data set holds, as lines to print."""

    lines: tuple[str, ...]
    faults: tuple[str, ...]
    """What training would stop at; empty for a data set that is as it should be."""


def check_folders(data: Path, *, val_split: str | None = "val") -> ClassificationCheck:
    """Return what `data/train` and `data/val_split` hold, or the former alone where the latter is None.

    Headers of all images are read, and pixels up to the first image of a split that can be decoded.
    """
    lines, faults = [f"{data}: folders of classes"], []
    found: list[ImageFolder] = []
    for split in ("train", val_split) if val_split else ("train",):
        try:
            folder, notes = open_split(data, split)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        found.append(folder)
        counts = Counter(dict.fromkeys(folder.classes, 0))
        counts.update(folder.classes[label] for _, label in folder.samples)
        (most, highest), *_, (least, lowest) = counts.most_common()
        lines.append(f"{split}: {len(folder.samples)} images, from {lowest} ({least}) to {highest} ({most}) a class")
        lines += [f"  {note}" for note in notes]
        if unreadable := _unreadable(folder):
            faults.append(f"{split}: {len(unreadable)} files cannot be read: {some(unreadable, 3)}")
        if (nothing := none_readable([path for path, _ in folder.samples], split)) is not None:
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


def _unreadable(folder: ImageFolder) -> list[str]:
    messages = []
    for path, _ in folder.samples:
        try:
            upright_size(Path(path))
        except UnreadableImageError as error:
            messages.append(str(error))
    return messages
