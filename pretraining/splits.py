"""Training and validation images of pre-training: two folders, or one of which a stated share is held out.

Which images are held out follows from their names alone, so it is the same in every run and on every machine.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import UnlabelledSplits
from engine.images.arrays import RGB
from engine.images.reading import ImageFile, ImageSource, Picture, open_images

TRAIN, VAL, WHOLE = "train", "val", "."
NAMED = 4  # folders that a note names


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The images of a run."""

    train: ImageSource
    val: ImageSource
    train_split: str
    """Folder of the training images; `.` is the folder of the data itself."""
    val_split: str
    """Folder of the validation images, or what they are held out of."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of them."""
        return (*self.train.notes, *self.val.notes)


class Part:
    """Some images of a source, in its order."""

    def __init__(self, source: ImageSource, indices: Sequence[int], notes: tuple[str, ...]) -> None:
        self.source, self.indices, self.notes = source, tuple(indices), notes

    def __len__(self) -> int:
        return len(self.indices)

    def image_id(self, index: int) -> str:
        """The name of an image below the folder."""
        return self.source.image_id(self.indices[index])

    def read(self, index: int, *, least_area: float | None = None) -> Picture:
        """The image. Raises UnreadableImageError."""
        return self.source.read(self.indices[index], least_area=least_area)

    def file(self, index: int) -> ImageFile:
        """Its file. Raises UnreadableImageError."""
        return self.source.file(self.indices[index])


def open_splits(data: Path, asked: UnlabelledSplits, channels: int = RGB) -> Splits:
    """Return the images below `data/train` and `data/<val_split>`, of so many channels.

    Where there is no `val`, a share of the training images is held out; where there is no `train` either, of all images
    below `data`. Raises what `open_images` raises, and ValueError for a share that leaves nothing on one side.
    """
    folder, val = data / TRAIN, data / asked.val_split
    if val.is_dir() or asked.val_split != VAL:  # one that is named has to be there
        return Splits(
            train=open_images(folder, channels),
            val=open_images(val, channels),
            train_split=TRAIN,
            val_split=asked.val_split,
        )
    split = TRAIN if folder.is_dir() else WHOLE
    source = open_images(data / split, channels)
    away = held_out([source.image_id(index) for index in range(len(source))], share=asked.held_out, of=data / split)
    kept = sorted(set(range(len(source))) - set(away))
    missing = "val" if split == TRAIN else "train and no val"
    note = (
        f"{data} has no {missing}: of {len(source)} images below {data / split}{_folders(source)} {len(away)} are held "
        f"out for validation (held_out {asked.held_out:g}, chosen by a digest of their names)"
    )
    return Splits(
        train=Part(source, kept, (*source.notes, note)),
        val=Part(source, away, ()),
        train_split=split,
        val_split=f"held out of {split}",
    )


def held_out(names: Sequence[str], *, share: float, of: Path) -> list[int]:
    """Return the numbers of the images that are held out, ascending: those whose names have the lowest digests.

    Raises ValueError for a share that is none, and for a single image; at least one image is on each side.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out is {share:g}; it must be above 0 and below 1, or give the data a val/ folder.")
    if len(names) < 2:
        raise ValueError(f"{of}: holds a single image, of which none can be held out for validation; two are needed.")
    count = min(len(names) - 1, max(1, round(share * len(names))))
    ranked = sorted(range(len(names)), key=lambda number: _digest(names[number]))
    return sorted(ranked[:count])


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _folders(source: ImageSource) -> str:
    """Return how many images are in which folder, where there are several: whether they are all meant."""
    first = (source.image_id(index).partition("/") for index in range(len(source)))
    found = Counter(head if slash else WHOLE for head, slash, _ in first)
    if len(found) < 2:
        return ""
    listed = ", ".join(f"{name} {count}" for name, count in found.most_common(NAMED))
    return f" ({listed}{', ...' if len(found) > NAMED else ''})"
