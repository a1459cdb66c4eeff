"""How data sets lie on disk. The layout is declared (`layout` of the configuration), never guessed.

ade20k      images/{training,validation}/x.jpg, annotations/{training,validation}/x.png: 0 other, 1 to N the classes;
            objectInfo<N>.txt: tab-separated with columns Idx and Name (without it N is the highest label)
cityscapes  leftImg8bit/{train,val}/CITY/x_leftImg8bit.png, gtFine/{train,val}/CITY/x_gtFine_labelTrainIds.png;
            without such files x_gtFine_labelIds.png, whose numbers are mapped
voc         JPEGImages/x.jpg (or another ending where one file alone has the name), SegmentationClass/x.png,
            ImageSets/Segmentation/{train,val}.txt: 0 background, 1 to 20 the other classes, 255 ignored; the classes of
            CVAT's labelmap.txt where there is one
coco_stuff  images/{train2017,val2017}/x.jpg, annotations/{train2017,val2017}/x_labelTrainIds.png; without such files
            x.png, COCO-Stuff's own pixel maps, whose numbers are mapped
folder      images/{train,val}/x.*, labels/{train,val}/x.png: 0 to N - 1 the classes, 255 ignored; classes.txt:
            a name a line, the first for 0, a tab and #rrggbb behind it or not; or CVAT's labelmap.txt

Label maps may be .tif or .bmp in the place of .png.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.config import LabelFraction
from engine.images.arrays import RGB
from engine.images.reading import UnreadableImageError
from engine.subset import part_of
from files.naming import SYSTEM
from files.shared import shared_paths
from segmentation.config import LayoutName
from segmentation.data import classes as known
from segmentation.data.classes import Classes
from segmentation.data.labels import (
    CONVERT,
    IGNORED,
    MOST_CLASSES,
    LabelCensus,
    LabelMapping,
    check_label,
    count_values,
    from_nought,
    from_one,
    is_binary_mask,
    read_label_map,
    take_census,
)
from segmentation.data.pairs import Pair, check_folders, pair_folders, some, system_images
from segmentation.data.voc import voc_notes, voc_pairs

CENSUS_LIMIT = 2000  # label maps that are all read at the start; about ten seconds for photographs


@dataclass(frozen=True)
class Layout:
    """Where one kind of data set keeps what."""

    train: str
    """Name of the split to train on, unless another is asked for."""
    val: str
    pairs: Callable[[Path, str], list[Pair]]
    """The images of a split of a data set, with their label maps."""
    classes: Callable[[Path], Classes | None]
    """Its classes; None where it does not list them."""
    label_mapping: Callable[[Classes, list[Pair]], LabelMapping]
    """Which numbers its label maps store, for its classes and the pairs of one split."""
    arrays: Callable[[Path, str, int], list[Pair]] | None = None
    """As `pairs`, of images of so many channels, other than three; None where the data set is of photographs."""
    folders: tuple[str, ...] = ()
    """Folders in which every split has one of its own."""
    notes: Callable[[Path, str], list[str]] = lambda _root, _split: []
    """What people should know of the list of a split."""


@dataclass(frozen=True)
class Split:
    """The images of one part of a data set."""

    name: str
    pairs: tuple[Pair, ...]
    label_mapping: LabelMapping


@dataclass(frozen=True)
class SegmentationFolder:
    """A data set, checked."""

    root: Path
    train: Split
    val: Split
    classes: Classes
    notes: tuple[str, ...]


def with_part(folder: SegmentationFolder, part: LabelFraction) -> SegmentationFolder:
    """Return the data set with the fraction of its training images that `part` chooses, whose label maps are read.

    Raises UnreadableImageError and ValueError as `read_label_map`.
    """
    if part.label_fraction is None:
        return folder
    pairs, table = folder.train.pairs, np.array(folder.train.label_mapping.table)

    def classes_of(pair: Pair) -> list[int]:
        found = table[[value for value in count_values(read_label_map(pair.labels)) if 0 <= value < len(table)]]
        return [int(label) for label in {*found.tolist()} if 0 <= label < len(folder.classes.names)]

    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter's lock
        held = [*pool.map(classes_of, pairs)]
    pair_P2 = np.array([(n, label) for n, labels in enumerate(held) for label in sorted(labels)]).reshape(-1, 2)
    names = [pair.image_id for pair in pairs]
    chosen, note = part_of(names, pair_P2, part, classes=folder.classes.names)
    train = replace(folder.train, pairs=tuple(pairs[number] for number in chosen))
    return replace(folder, train=train, notes=(*folder.notes, f"{folder.train.name}: {note}"))


def open_folder(
    root: Path,
    layout: LayoutName = "ade20k",
    *,
    train: str | None = None,
    val: str | None = None,
    channels: int = RGB,
) -> SegmentationFolder:
    """Return the data set in `root`; `train` and `val` name splits other than the layout's own.

    Raises FileNotFoundError that says what was looked for and found, and ValueError for images without label
    maps, label maps without images, and labels that no class stands for.
    """
    kind = LAYOUTS[layout]
    names = train or kind.train, val or kind.val
    parts = [pairs_of(layout, root, name, channels) for name in names]
    listed = kind.classes(root)
    censuses: list[LabelCensus] = []
    if listed is None or sum(len(pairs) for pairs in parts) <= CENSUS_LIMIT:
        censuses = [take_census(pair.labels for pair in pairs) for pairs in parts]
    notes = []
    if listed is None:
        listed = numbered(value for census in censuses for value in census.pixels)
        if listed is None:
            raise ValueError(_nothing(root, censuses))
        notes.append(f"no objectInfo<N>.txt: {len(listed.names)} classes, from the highest label found")
    check_count(root, listed)
    splits = [
        Split(name, tuple(pairs), kind.label_mapping(listed, pairs)) for name, pairs in zip(names, parts, strict=True)
    ]
    if censuses:
        notes += _audit(root, censuses, listed, [split.label_mapping for split in splits])
    for split in splits:
        if not any(_scored(pair.labels, split.label_mapping) for pair in split.pairs):
            raise ValueError(nothing_counts(split.name, [pair.labels for pair in split.pairs], split.label_mapping))
        notes += kind.notes(root, split.name)
        if system := [name for folder in kind.folders for name in system_images(root / folder / split.name)]:
            notes.append(f"{split.name}: {len(system)} images {SYSTEM} left out ({some(system)})")
    if shared := shared_paths(*([str(pair.image) for pair in split.pairs] for split in splits)):
        notes.append(f"{len(shared)} images are in {names[0]} and in {names[1]} ({some(shared, 3)})")
    return SegmentationFolder(root, splits[0], splits[1], listed, tuple(notes))


def pairs_of(layout: LayoutName, root: Path, split: str, channels: int = RGB) -> list[Pair]:
    """Return the images of a split with their label maps. Raises ValueError for a layout of photographs alone."""
    kind = LAYOUTS[layout]
    if channels == RGB:
        return kind.pairs(root, split)
    if kind.arrays is None:
        raise ValueError(
            f"{root}: the layout {layout} is of RGB photographs, and the images have {channels} channels; lay them out "
            "as ade20k or folder (--layout)."
        )
    return kind.arrays(root, split, channels)


def nothing_counts(split: str, maps: Sequence[Path], label_mapping: LabelMapping) -> str:
    """Return the message on a split in which every pixel is ignored."""
    return (
        f"{split}: in none of its {len(maps)} label maps ({maps[0]}, ...) does a pixel count: all are ignored "
        f"or unreadable, so that nothing can be learnt or scored. The data set has {label_mapping.says}."
    )


def _scored(path: Path, label_mapping: LabelMapping) -> bool:
    """Whether a label map has a pixel that counts, or something wrong that is said where it is read."""
    try:
        values = count_values(read_label_map(path))
    except UnreadableImageError:
        return False
    except ValueError:
        return True
    return any(not 0 <= value <= IGNORED or label_mapping.table[value] != IGNORED for value in values)


def check_count(root: Path, classes: Classes) -> None:
    """Raise ValueError where there are too few or too many classes to tell apart."""
    count = len(classes.names)
    if not 2 <= count <= MOST_CLASSES:
        raise ValueError(
            f"{root}: {count} class(es); segmentation needs 2 to {MOST_CLASSES}. What is ignored is no class, so a "
            "background that is to be told apart needs a number and a name of its own."
        )


def numbered(values: Iterable[int]) -> Classes | None:
    """Return nameless classes up to the highest number of ADE20K's label mapping, or None where nothing is labelled.

    With 150 of them they are ADE20K's.
    """
    highest = max((value for value in values if value not in (0, IGNORED)), default=0)
    if highest == 150:
        return known.ade20k()
    return Classes(tuple(f"class {number}" for number in range(1, highest + 1)), None) if highest else None


def _ade20k_pairs(root: Path, split: str, channels: int = RGB) -> list[Pair]:
    check_folders(root, (f"images/{split}", f"annotations/{split}"), "ade20k")
    return pair_folders(root / "images" / split, root / "annotations" / split, channels=channels)


def _cityscapes_pairs(root: Path, split: str) -> list[Pair]:
    check_folders(root, (f"leftImg8bit/{split}", f"gtFine/{split}"), "cityscapes")
    suffixes = [("_leftImg8bit", f"_gtFine_{kind}") for kind in ("labelTrainIds", "labelIds")]
    return pair_folders(root / "leftImg8bit" / split, root / "gtFine" / split, suffixes)


def _coco_stuff_pairs(root: Path, split: str) -> list[Pair]:
    check_folders(root, (f"images/{split}", f"annotations/{split}"), "coco_stuff")
    return pair_folders(root / "images" / split, root / "annotations" / split, [("", "_labelTrainIds"), ("", "")])


def _folder_pairs(root: Path, split: str, channels: int = RGB) -> list[Pair]:
    check_folders(root, (f"images/{split}", f"labels/{split}"), "folder")
    return pair_folders(root / "images" / split, root / "labels" / split, channels=channels)


LAYOUTS: dict[LayoutName, Layout] = {
    "ade20k": Layout(
        train="training",
        val="validation",
        pairs=_ade20k_pairs,
        arrays=_ade20k_pairs,
        folders=("images", "annotations"),
        classes=known.read_object_info,
        label_mapping=lambda classes, _: from_one(len(classes.names)),
    ),
    "cityscapes": Layout(
        train="train",
        val="val",
        pairs=_cityscapes_pairs,
        folders=("leftImg8bit", "gtFine"),
        classes=lambda _: known.cityscapes(),
        label_mapping=lambda classes, pairs: known.named_label_mapping(
            classes, pairs, "_labelTrainIds", known.cityscapes_ids()
        ),
    ),
    "voc": Layout(
        train="train",
        val="val",
        pairs=voc_pairs,
        notes=voc_notes,
        classes=lambda root: (
            known.read_class_list(root / known.LABEL_MAP) if (root / known.LABEL_MAP).is_file() else known.voc()
        ),
        label_mapping=lambda classes, _: from_nought(len(classes.names)),
    ),
    "coco_stuff": Layout(
        train="train2017",
        val="val2017",
        pairs=_coco_stuff_pairs,
        folders=("images", "annotations"),
        classes=lambda _: known.coco_stuff(),
        label_mapping=lambda classes, pairs: known.named_label_mapping(
            classes, pairs, "_labelTrainIds", known.coco_stuff_ids()
        ),
    ),
    "folder": Layout(
        train="train",
        val="val",
        pairs=_folder_pairs,
        arrays=_folder_pairs,
        folders=("images", "labels"),
        classes=lambda root: known.read_class_list(known.listed_classes(root)),
        label_mapping=lambda classes, _: from_nought(len(classes.names)),
    ),
}


def _nothing(root: Path, censuses: Sequence[LabelCensus]) -> str:
    masks = ""
    if _binary(censuses):
        masks = f" They look like black-and-white masks, in which 255 marks what is wanted; `{CONVERT}` writes numbers."
    unreadable = sum(len(census.unreadable) for census in censuses)
    return (
        f"{root}: nothing is labelled in {sum(census.maps for census in censuses)} label maps (all are 0 or 255, or "
        f"unreadable: {unreadable}); write class numbers.{masks}"
    )


def _binary(censuses: Sequence[LabelCensus]) -> bool:
    return is_binary_mask(value for census in censuses for value in census.pixels)


def _audit(
    root: Path, censuses: Sequence[LabelCensus], classes: Classes, label_mappings: Sequence[LabelMapping]
) -> list[str]:
    """Return notes on the labels. Raises ValueError where one stands for no class, and where none stands for one."""
    present: set[int] = set()
    for census, label_mapping in zip(censuses, label_mappings, strict=True):
        for value, path in sorted(census.first.items()):
            check_label(value, path, label_mapping)
            present.add(label_mapping.table[value])
    present.discard(IGNORED)
    if not present or _binary(censuses):
        raise ValueError(_nothing(root, censuses))
    absent = [name for number, name in enumerate(classes.names) if number not in present]
    maps = sum(census.maps for census in censuses)
    notes = [f"{maps} label maps read: {len(present)} of {len(classes.names)} classes occur"]
    if absent:
        notes.append(f"never labelled: {some(absent)}")
    if unreadable := [message for census in censuses for message in census.unreadable]:
        notes.append(f"{len(unreadable)} unreadable label maps: {some(unreadable)}")
    return notes
