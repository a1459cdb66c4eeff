"""Writing a data set as folders of classes: `train/<class>/`, `val/<class>/`, each class in each split."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conversion.dataset import usual_splits, validation_note
from detection.data.defects import Tally, said
from engine.images.reading import EXTENSIONS
from files.naming import distinct_stems, inside
from files.writing import link_or_copy, new_folder


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One image of one class."""

    label: int
    name: str
    """Path below the class's folder, with forward slashes."""
    content: Path | bytes
    """Its file, or what is in it."""
    source: str
    """What messages call it."""


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Images by split, read as they are asked for."""

    classes: tuple[str, ...]
    splits: Mapping[str, Iterable[Labelled]]
    """By the source's names."""
    tally: Tally = field(default_factory=Tally)


def write_class_folders(data: LabelledSet, out: Path, *, copy: bool = False) -> list[str]:
    """Write the data set to `out`, a new folder, and return a line for each split and for what was left out.

    Images that are files become links to them, or with `copy` copies. Raises ValueError for two splits of one folder,
    two images of one name, and a split without an image.
    """
    folders = usual_splits(data.splits)
    names = _class_names(data.classes, data.tally)
    lines = []
    with new_folder(out) as root:
        for split, images in data.splits.items():
            folder = folders[split]
            for name in names:
                (root / folder / name).mkdir(parents=True)
            count = sum(_write(root / folder / names[image.label], image, data.tally, copy=copy) for image in images)
            if not count:
                lost = "; ".join(map(said, data.tally.defects()))
                raise ValueError(f"{out}: the split {split!r} has no image that can be used{': ' * bool(lost)}{lost}.")
            lines.append(f"{folder}: {count} images of {len(names)} classes, of split {split!r}")
    return [*lines, *map(said, data.tally.defects()), *validation_note(folders.values(), "train_cls", out)]


def _class_names(classes: Sequence[str], tally: Tally) -> list[str]:
    """Return a folder's name for each class: its own where it can be one."""
    names = distinct_stems(classes, classes, endings=("",))
    for name, folder in zip(classes, names, strict=True):
        if name != folder:
            tally.add("names of classes that no folder can have, changed", f"{name!r} to {folder!r}")
    return names


def _write(folder: Path, image: Labelled, tally: Tally, *, copy: bool) -> int:
    """Write an image and return 1, or 0 where it was left out."""
    if not image.name.lower().endswith(EXTENSIONS):
        tally.add("files of no image format that is read, left out", f"{image.source}: {image.name}")
        return 0
    target = inside(folder, image.name, source=Path(image.source), links=True)
    if target.exists():
        tally.add("images that come twice in one class, taken once", f"{image.source}: {image.name}")
        return 0
    if isinstance(image.content, bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image.content)
    else:
        link_or_copy(image.content, target, copy=copy)
    return 1
