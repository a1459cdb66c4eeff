"""The ADE20K layout on disk: which image goes with which label map, and what the classes are called.

images/{training,validation}/<name>.jpg
annotations/{training,validation}/<name>.png
objectInfo<N>.txt                              optional: names, tab-separated, with columns Idx and Name
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from engine.images import EXTENSIONS
from segmentation.host import ADE20KDataset
from segmentation.labels import MOST_CLASSES, LabelCensus, check_label, take_census

TRAIN, VAL = "training", "validation"
CENSUS_LIMIT = 2000  # label maps that are all read at the start; about ten seconds for photographs


@dataclass(frozen=True)
class Pair:
    """One image and its label map."""

    image_id: str
    """Path of the image below the split's folder."""
    image: Path
    labels: Path


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, label 1 first."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    """RGB per class; None leaves the choice to mmseg."""


@dataclass(frozen=True)
class SegmentationFolder:
    """A data set in the ADE20K layout, checked."""

    root: Path
    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    classes: Classes
    notes: tuple[str, ...]


def open_folder(root: Path) -> SegmentationFolder:
    """Return the data set in `root`.

    Raises FileNotFoundError that says what was looked for and found, and ValueError for images without label
    maps, label maps without images, and labels that no class stands for.
    """
    train, val = find_pairs(root, TRAIN), find_pairs(root, VAL)
    listed = read_class_names(root)
    paths = [pair.labels for pair in (*train, *val)]
    census = take_census(paths) if listed is None or len(paths) <= CENSUS_LIMIT else None
    notes = []
    if listed is None:
        assert census is not None
        listed = _numbered(root, census)
        notes.append(f"no objectInfo<N>.txt: {len(listed.names)} classes, from the highest label found")
    count = len(listed.names)
    if not 2 <= count <= MOST_CLASSES:
        raise ValueError(
            f"{root}: {count} class(es); segmentation needs 2 to {MOST_CLASSES}. Label 0 is ignored, so a "
            "background that is to be told apart needs a number of its own."
        )
    if census is not None:
        notes += _audit(census, listed)
    return SegmentationFolder(root, tuple(train), tuple(val), listed, tuple(notes))


def find_pairs(root: Path, split: str) -> list[Pair]:
    """Return the images of a split with their label maps, sorted by name."""
    folders = root / "images" / split, root / "annotations" / split
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{root}: looked for images/{split} and annotations/{split} (ADE20K's layout); found "
                f"{_listing(root)}. --data names the folder that holds images/ and annotations/."
            )
    images, labels = _by_stem(folders[0], EXTENSIONS), _by_stem(folders[1], (".png",))
    if not images:
        raise FileNotFoundError(f"{folders[0]}: holds no image file ({', '.join(EXTENSIONS)}).")
    alone, orphans = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
    if alone or orphans:
        raise ValueError(
            f"{root}, {split}: {len(alone)} of {len(images)} images have no label map ({_some(alone)}) and "
            f"{len(orphans)} of {len(labels)} label maps have no image ({_some(orphans)}); "
            f"images/{split}/x.jpg goes with annotations/{split}/x.png. Add or remove the files named."
        )
    return [
        Pair(images[stem].relative_to(folders[0]).as_posix(), images[stem], labels[stem]) for stem in sorted(images)
    ]


def read_class_names(root: Path) -> Classes | None:
    """Return the classes that `objectInfo<N>.txt` lists, or None without such a file."""
    files = sorted(root.glob("objectInfo*.txt"))
    if not files:
        return None
    if len(files) > 1:
        raise ValueError(f"{root}: holds {len(files)} class lists ({_some([f.name for f in files])}); keep one.")
    with files[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        numbers, names = [int(row["Idx"]) for row in rows], tuple(row["Name"].strip() for row in rows)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{files[0]}: not a tab-separated class list with columns Idx and Name ({error!r})."
        ) from error
    if numbers != list(range(1, len(rows) + 1)):
        raise ValueError(f"{files[0]}: column Idx must count 1, 2, 3, ... up to {len(rows)}; found {numbers[:10]}.")
    return Classes(names, _ade_palette() if len(names) == 150 else None)


def _numbered(root: Path, census: LabelCensus) -> Classes:
    if not census.highest:
        raise ValueError(
            f"{root}: nothing is labelled in {census.maps} label maps (all are 0 or 255, or unreadable: "
            f"{len(census.unreadable)}); write class numbers from 1 on."
        )
    if census.highest == 150:
        return Classes(tuple(ADE20KDataset.METAINFO["classes"]), _ade_palette())
    return Classes(tuple(f"class {number}" for number in range(1, census.highest + 1)), None)


def _ade_palette() -> tuple[tuple[int, int, int], ...]:
    return tuple((r, g, b) for r, g, b in ADE20KDataset.METAINFO["palette"])


def _audit(census: LabelCensus, classes: Classes) -> list[str]:
    """Return notes on the labels. Raises ValueError where one is above the number of classes."""
    count = len(classes.names)
    if census.highest_path is not None:
        check_label(census.highest, census.highest_path, count)
    absent = [name for number, name in enumerate(classes.names, start=1) if number not in census.present]
    notes = [f"{census.maps} label maps read: {count - len(absent)} of {count} classes occur"]
    if absent:
        notes.append(f"never labelled: {_some(absent)}")
    if census.unreadable:
        notes.append(f"{len(census.unreadable)} unreadable label maps: {_some(list(census.unreadable))}")
    return notes


def _by_stem(folder: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in extensions):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{folder}: {found[stem].name} and {path.name} would share one label map; rename one.")
        found[stem] = path
    return found


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    inside = folder if not (folder / "images").is_dir() else folder / "images"
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in inside.iterdir())
    return f"{_some(names)} in {inside}" if names else f"{inside} empty"


def _some(names: list[str], most: int = 5) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"
