"""A look at a data set before it is trained on: what the label maps hold, and everything that is wrong with them.

Where training stops at the first fault, this goes on and lists them all.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.images.arrays import RGB, ChannelsError
from engine.images.file import UnreadableImageError, say_need
from engine.images.reading import endings_of, none_readable, other_kind, size_of
from files.naming import SYSTEM, refuse_overwriting
from files.shared import same_content
from segmentation.data.classes import Classes, listed_classes, read_class_list, read_object_info
from segmentation.data.labels import (
    CONVERT,
    IGNORED,
    REFUSED,
    LabelMapping,
    count_values,
    from_nought,
    from_one,
    read_label_map,
)
from segmentation.data.layout import LAYOUTS, check_count, nothing_counts, numbered, pairs_of
from segmentation.data.pairs import Pair, by_stem, label_maps, missing_partners, some, system_images
from segmentation.evaluation.pictures import draw_sheet

BYTES_PER_PIXEL = 7  # an image and its label map, decoded one after the other: 0.6 GB measured for 100 megapixels
FOLDERS = {"ade20k": "annotations", "folder": "labels"}


@dataclass
class SplitFindings:
    """What one split holds; lists of faults name the files."""

    name: str
    pairs: list[Pair] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    """Images without label map."""
    orphans: list[str] = field(default_factory=list)
    """Label maps without image."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) of the images -> how many."""
    pixels: Counter[int] = field(default_factory=Counter)
    """Stored number -> pixels."""
    in_maps: Counter[int] = field(default_factory=Counter)
    """Stored number -> label maps that hold it."""
    first: dict[int, Path] = field(default_factory=dict)
    """Stored number -> the first label map that holds it."""
    unreadable: list[str] = field(default_factory=list)
    colour: list[str] = field(default_factory=list)
    """Messages for label maps of several channels."""
    channels: list[str] = field(default_factory=list)
    """Messages for images of another number of channels."""
    other_size: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)
    """16-bit label maps."""
    binary: list[str] = field(default_factory=list)
    """Label maps that hold 0 and 255 alone."""
    ignored: list[str] = field(default_factory=list)
    """Label maps in which nothing counts."""


@dataclass(frozen=True)
class SegmentationCheck:
    """What a data set holds, as lines to print."""

    lines: tuple[str, ...]
    faults: tuple[str, ...]
    """What training would stop at, or learn nothing from; empty for a data set that is as it should be."""
    sheet: Path | None
    """Contact sheet: images beside their label maps."""


def check_ade20k(
    root: Path, *, sheet: Path | None = None, layout: Literal["ade20k", "folder"] = "ade20k", channels: int = RGB
) -> SegmentationCheck:
    """Return what the data set in `root` holds, of images of so many channels; write a contact sheet to `sheet` where
    it is given.

    `folder` checks images/, labels/ and classes.txt instead. Raises FileNotFoundError where no split is there, and
    ValueError for a class list that cannot be read and for a sheet over what is read.
    """
    kind, labels = LAYOUTS[layout], FOLDERS[layout]
    if sheet is not None:
        read = [path for name in ("images", labels) for path in (root / name).rglob("*") if path.is_file()]
        refuse_overwriting([sheet], [*read, *root.glob("*.txt")])
    present = [name for name in (kind.train, kind.val) if (root / "images" / name).is_dir()]
    found = [_scan(root, name, labels, layout, channels) for name in present]
    if not found:
        pairs_of(layout, root, kind.train, channels)  # says what was looked for and what is there
    classes = _classes(root, layout, found)
    check_count(root, classes)
    label_mapping = (from_one if layout == "ade20k" else from_nought)(len(classes.names))
    missing = [name for name in (kind.train, kind.val) if name not in [split.name for split in found]]
    lines = [f"{root}: {layout} layout, {label_mapping.says}"]
    faults = [f"images/{name} is missing: no {name} split" for name in missing]
    for split in found:
        lines += _describe(split)
        if not split.pairs and (hint := other_kind((root / "images" / split.name).rglob("*"), channels)):
            faults.append(f"{split.name}:{hint}")
        faults += _faults(split, label_mapping)
        if split.pairs and not any(
            label_mapping.table[value] != IGNORED for value in split.pixels if 0 <= value <= IGNORED
        ):
            faults.append(nothing_counts(split.name, [pair.labels for pair in split.pairs], label_mapping))
        if (nothing := none_readable([pair.image for pair in split.pairs], split.name, channels)) is not None:
            faults.append(nothing)
        folders = [root / kind / split.name for kind in ("images", labels)]
        if system := [name for folder in folders for name in system_images(folder)]:
            lines.append(f"  {len(system)} images {SYSTEM} left out: {some(system)}")
    if len(found) == 2:
        same = same_content(*([pair.image for pair in split.pairs] for split in found))
        if same:
            pairs_said = [f"{a.name} and {b.name}" for a, b in same]
            lines.append(
                f"{len(same)} images of {found[1].name} are in {found[0].name} too, byte by byte: {some(pairs_said, 3)}"
            )
    lines += _histogram(found, classes, label_mapping)
    faults += _from_nought_already(found, classes, layout)
    drawn = None
    pairs = [pair for split in found for pair in split.pairs]
    if sheet is not None and pairs:
        drawn = sheet
        faults += [
            f"drawn for the sheet: {error}"
            for error in draw_sheet(sheet, pairs, classes, label_mapping, channels=channels)
        ]
    lines += ["", "faults:" if faults else "no faults found", *(f"  {fault}" for fault in faults)]
    return SegmentationCheck(tuple(lines), tuple(faults), drawn)


def _classes(root: Path, layout: str, found: Sequence[SplitFindings]) -> Classes:
    if layout == "folder":
        return read_class_list(listed_classes(root))
    if (listed := read_object_info(root)) is not None:
        return listed
    # nothing usable: two nameless classes, so that the numbers found can be shown
    values = (value for split in found for value in split.pixels if value < IGNORED)
    return numbered(values) or Classes(("class 1", "class 2"), None)


def _scan(root: Path, name: str, labels: str, layout: str, channels: int) -> SplitFindings:
    split = SplitFindings(name)
    images = by_stem(root / "images" / name, endings_of(channels))
    maps = label_maps(root / labels / name, images.keys())
    split.alone, split.orphans = missing_partners(images, maps)
    for stem in sorted(images.keys() & maps.keys()):
        pair = Pair(images[stem].relative_to(root / "images" / name).as_posix(), images[stem], maps[stem])
        _scan_pair(split, pair, ignored={0, IGNORED} if layout == "ade20k" else {IGNORED}, channels=channels)
    return split


def _scan_pair(split: SplitFindings, pair: Pair, ignored: set[int], *, channels: int) -> None:
    try:
        size = size_of(pair.image, channels)
        if channels == RGB and size[0] * size[1] > max((width * height for width, height in split.sizes), default=0):
            say_need(pair.image, BYTES_PER_PIXEL)
        label_HW = read_label_map(pair.labels)
    except UnreadableImageError as error:
        split.unreadable.append(str(error))
        return
    except ChannelsError as error:
        split.channels.append(str(error))
        return
    except ValueError as error:
        split.colour.append(str(error))
        return
    split.pairs.append(pair)
    split.sizes[size] += 1
    if label_HW.shape[::-1] != size:
        width, height = label_HW.shape[::-1]
        split.other_size.append(f"{pair.labels.name} {width} x {height}, its image {size[0]} x {size[1]}")
    if label_HW.dtype.itemsize > 1:
        split.wide.append(pair.labels.name)
    values = count_values(label_HW)
    split.pixels.update(values)
    split.in_maps.update(values.keys())
    for value in values:
        split.first.setdefault(value, pair.labels)
    if values.keys() == {0, IGNORED}:
        split.binary.append(pair.labels.name)
    elif values.keys() <= ignored:
        split.ignored.append(pair.labels.name)


def _describe(split: SplitFindings) -> list[str]:
    sizes = [f"{width} x {height} ({count})" for (width, height), count in split.sizes.most_common()]
    lines = ["", f"{split.name}: {len(split.pairs)} images with readable label maps"]
    if split.sizes:
        widths, heights = zip(*split.sizes, strict=True)
        lines.append(f"  width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)} pixels")
        lines.append(f"  sizes: {some(sizes, 4)}")
    if split.wide:
        lines.append(f"  {len(split.wide)} label maps of 16 bits: {some(split.wide)} (numbers above 255 are refused)")
    if split.ignored:
        lines.append(f"  {len(split.ignored)} label maps in which every pixel is ignored: {some(split.ignored)}")
    return lines


def _faults(split: SplitFindings, label_mapping: LabelMapping) -> list[str]:
    named = {
        "images have no label map": split.alone,
        "label maps have no image": split.orphans,
        "files cannot be read": split.unreadable,
        "images are of another number of channels": split.channels,
        "label maps hold colours, not numbers": split.colour,
        "label maps are not of their image's size": split.other_size,
    }
    faults = [f"{split.name}: {len(names)} {what}: {some(names, 3)}" for what, names in named.items() if names]
    if split.binary:
        faults.append(
            f"{split.name}: {len(split.binary)} label maps hold 0 and 255 alone: {some(split.binary)}; 255 is ignored. "
            f"If they are black-and-white masks, `{CONVERT}` writes numbers."
        )
    for value, pixels in sorted(split.pixels.items()):
        if not 0 <= value <= IGNORED or label_mapping.table[value] == REFUSED:
            faults.append(
                f"{split.name}: label {value} ({pixels} pixels in {split.in_maps[value]} maps, first in "
                f"{split.first[value].name}) stands for no class; there are {label_mapping.says}"
            )
    return faults


def _histogram(found: Sequence[SplitFindings], classes: Classes, label_mapping: LabelMapping) -> list[str]:
    """Return a table: every stored number, and what becomes of it."""
    header = f"{'stored':>6}  {'class':>7}  {'name':24}"
    for split in found:
        header += f"  {split.name + ' pixels':>22}  {'share':>6}  {'maps':>6}"
    lines = ["", "label values as stored, and the class from 0 that each becomes:", header]
    totals = [max(1, sum(split.pixels.values())) for split in found]
    stored = {value for split in found for value in split.pixels}
    for value in sorted(stored):
        number = label_mapping.table[value] if 0 <= value <= IGNORED else REFUSED
        name = "" if number in (IGNORED, REFUSED) else classes.names[number]
        becomes = {IGNORED: "ignored", REFUSED: "none"}.get(number, str(number))
        row = f"{value:>6}  {becomes:>7}  {name:24.24}"
        for split, total in zip(found, totals, strict=True):
            pixels = split.pixels[value]
            row += f"  {pixels:>22}  {pixels / total:>6.1%}  {split.in_maps[value]:>6}"
        lines.append(row)
    occurring = {label_mapping.table[value] for value in stored if 0 <= value <= IGNORED}
    never = [name for number, name in enumerate(classes.names) if number not in occurring]
    lines.append(f"{len(classes.names) - len(never)} of {len(classes.names)} classes occur; never: {some(never)}")
    return lines


def _from_nought_already(found: Sequence[SplitFindings], classes: Classes, layout: str) -> list[str]:
    """Return a fault where the maps seem to count from 0 although the layout counts from 1."""
    stored = {value for split in found for value in split.pixels} - {IGNORED}
    last = len(classes.names)
    if layout == "ade20k" and stored == set(range(last)):
        return [
            f"labels 0 to {last - 1} all occur and {last} never does: if they count the classes from 0, 0 would be "
            f"ignored and every name be off by one. Add 1 to the maps, or use the `folder` layout."
        ]
    return []
