"""A look at a COCO-format data set before it is trained on: counts, classes, sizes, defects and how each is treated.

Where training stops at the first fault, this goes on to the next file, and every image is opened.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from detection.data.coco import CocoSplit, read_coco
from detection.data.defects import some
from detection.data.mapping import exchanged
from detection.evaluation.draw import draw_objects
from engine.drawing import label_text, write_figure
from engine.images.reading import UnreadableImageError, read_rgb
from files.naming import refuse_overwriting

SIDES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}  # COCO's, in pixels of area
MOST_CLASSES = 100  # lines of classes per split
SHEET_COLUMNS, SHEET_ROWS, PANEL_INCHES = 4, 3, 3.2


@dataclass(frozen=True)
class CocoCheck:
    """What a data set holds, as lines to print."""

    lines: tuple[str, ...]
    faults: tuple[str, ...]
    """What a training would be refused or stopped for."""
    sheet: Path | None


def check_coco(data: Path, *, files: Sequence[Path], sheet: Path) -> CocoCheck:
    """Return what the annotation files of a data set hold, and write a contact sheet of their images.

    Without `files` all instances_*.json in data/annotations are looked at; raises FileNotFoundError for none, and
    ValueError for a sheet over an image or an annotation file.
    """
    if not data.is_dir():
        raise FileNotFoundError(
            f"{data}: no such folder; give the one that holds the images' folders and annotations/."
        )
    chosen = list(files) or sorted((data / "annotations").glob("instances_*.json"))
    if not chosen:
        raise FileNotFoundError(
            f"{data / 'annotations'}: holds no instances_<split>.json; name the files with --annotations."
        )
    lines: list[str] = []
    faults: list[str] = []
    splits: list[CocoSplit] = []
    taken: dict[bytes, str] = {}
    for path in chosen:
        lines.append(f"{path}")
        try:
            split = read_coco(path, data=data, split=_split_name(path, data))
        except (ValueError, OSError) as error:
            faults.append(str(error))
            lines.append("  cannot be read; see the faults")
            continue
        images = [split.folder / name.decode() for name in split.store.arrays.name_I.tolist()]
        refuse_overwriting([sheet], [*chosen, *images])
        splits.append(split)
        lines += _describe(split)
        found, notes = _image_faults(split, taken)
        faults += found
        lines += notes
    if others := [split.annotations.name for split in splits if split.categories != splits[0].categories]:
        lines.append(
            f"{', '.join(others)}: other classes than {splits[0].annotations.name}; training and validation must have "
            "the same."
        )
    noted = sum(line.startswith("  note: ") for line in lines)
    fine = f"no faults found; see the {noted} notes above" if noted else "no faults found"
    lines += ["", "faults:" if faults else fine, *(f"  {fault}" for fault in faults)]
    return CocoCheck(tuple(lines), tuple(faults), _draw_sheet(sheet, splits) if splits else None)


def _split_name(path: Path, data: Path) -> str:
    """Return the images' folder that the file's name speaks of: `instances_train_super12.json` is of `train`."""
    name = path.stem.removeprefix("instances_")
    while name and not (data / name).is_dir() and "_" in name:
        name = name.rpartition("_")[0]
    return name


def _describe(split: CocoSplit) -> list[str]:
    arrays = split.store.arrays
    objects = split.records.objects
    crowds = int(arrays.crowd_A.sum())
    height_I, width_I = arrays.size_I2.T
    lines = [
        f"  {len(split.store)} images in {split.folder}, {int((objects == 0).sum())} of them without an object "
        "(validated on, and trained on with --empty-images alone)",
        f"  {int(objects.sum())} objects ({int(objects.max())} in an image at most) and {crowds} crowds (not trained "
        "on, detections on them do not count)",
        f"  images of {_range(width_I)} x {_range(height_I)} pixels (width x height), "
        f"{len(np.unique(arrays.size_I2, axis=0))} sizes",
    ]
    counted = arrays.area_A[~arrays.crowd_A]
    sizes = [f"{int(((counted >= low) & (counted < high)).sum())} {name}" for name, (low, high) in SIDES.items()]
    lines.append(f"  objects by COCO's sizes: {', '.join(sizes)} (below 32^2, below 96^2, larger; pixels of area)")
    masks = "every annotation has a mask" if split.masks else "no masks: boxes alone are trained and scored"
    lines.append(f"  {masks}")
    lines += [f"  note: {note.removeprefix(split.name + ': ')}" for note in split.notes]
    return [*lines, *_classes(split)]


def _classes(split: CocoSplit) -> list[str]:
    arrays = split.store.arrays
    count = np.bincount(arrays.class_A[~arrays.crowd_A], minlength=len(split.categories))
    rows = [
        f"    {category.id:>5} {category.name:24} {number:8,}"
        + ("  none: it cannot be learnt or scored" * (not number))
        for category, number in zip(split.categories, count.tolist(), strict=True)
    ]
    rest = len(rows) - MOST_CLASSES
    more = [f"    and {rest} more classes"] if rest > 0 else []
    return [f"  {len(rows)} classes (id, name, objects)", *rows[:MOST_CLASSES], *more]


def _image_faults(split: CocoSplit, taken: dict[bytes, str]) -> tuple[list[str], list[str]]:
    """Return the faults and notes of the images.

    Faults are unreadable images, which training counts and leaves out, and those of another size, which stop it; notes
    are images that another split has too, by their content. `taken` is where each content was first seen, and grows.
    """
    unreadable, other, both = [], [], []
    for number in range(len(split.store)):
        image = split.store.image(number)
        path = split.folder / image["file_name"]
        try:
            width, height = read_rgb(path).size
        except UnreadableImageError as error:
            unreadable.append(f"{image['file_name']} ({error.reason})")
            continue
        content = hashlib.sha256(path.read_bytes()).digest()
        first = taken.setdefault(content, str(split.annotations))
        if first != str(split.annotations):
            both.append(f"{image['file_name']}, also in {Path(first).name}")
        if (height, width) != (image["height"], image["width"]):
            stated = f"{image['width']}x{image['height']}"
            hint = exchanged(path) if (width, height) == (image["height"], image["width"]) else ""
            other.append(f"{image['file_name']} is {width}x{height}, stated {stated}.{hint}")
    faults = []
    if unreadable:
        faults.append(f"{split.annotations}: {len(unreadable)} images cannot be read: {some(unreadable)}")
    if other:
        faults.append(f"{split.annotations}: {len(other)} images have another size than stated: {some(other)}")
    notes = []
    if both:
        notes.append(
            f"  note: images that another file lists too, by their content: {len(both)} of {len(split.store)} "
            f"({some(both)}); scores of images that are trained on mean nothing"
        )
    return faults, notes


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _draw_sheet(path: Path, splits: Sequence[CocoSplit]) -> Path:
    """Write evenly spaced images of all splits, with their objects, as one PNG."""
    cells = SHEET_COLUMNS * SHEET_ROWS
    chosen = [
        (split, int(number))
        for split, share in zip(
            splits, np.diff(np.linspace(0, cells, len(splits) + 1).round().astype(int)), strict=True
        )
        for number in np.linspace(0, len(split.store) - 1, min(int(share), len(split.store))).astype(int)
    ]
    rows = -(-len(chosen) // SHEET_COLUMNS)
    figure = Figure(figsize=(SHEET_COLUMNS * PANEL_INCHES, rows * PANEL_INCHES), layout="constrained")
    panels = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).reshape(-1)
    for panel in panels:
        panel.set_axis_off()
    for panel, (split, number) in zip(panels, chosen, strict=False):
        image = split.store.image(number)
        panel.set_title(label_text(f"{split.name}: {image['file_name']}", keep="end"), fontsize=7)
        try:
            image_HW3 = np.asarray(read_rgb(split.folder / image["file_name"]))
        except UnreadableImageError:
            panel.text(0.5, 0.5, "unreadable", ha="center")
            continue
        names = dict(enumerate(category.name for category in split.categories))
        draw_objects(panel, image_HW3, split.store.annotations(number), names=names)
    write_figure(figure, path, dpi=100)
    return path
