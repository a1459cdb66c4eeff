"""YOLO's label files: a text file per image, an object per line, coordinates as fractions of the image's sides.

A line is `class cx cy width height`, a box by its centre, or `class x y x y x y ...`, a polygon (Ultralytics'
detection and segmentation formats; four corners of an oriented box read as a polygon). Images are measured upright,
with their EXIF orientation, as Ultralytics does.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from conversion.dataset import MISSING, DataSet, Instance, Picture, extent, size_of
from conversion.image_files import files_below_sorted, images_below
from conversion.yolo_layout import CLASS_LISTS, YoloLayout, label_path, read_layout
from detection.data.coco_fields import shown
from detection.data.defects import Tally
from files.naming import inside
from files.parsing import read_text

SLACK = 0.01  # by which a coordinate may leave the image, as Ultralytics allows it; the box is clipped when it is read
FORM = "a line is `class cx cy width height` or `class x y x y x y ...`"


@dataclass(frozen=True)
class YoloLine:
    """An object with its coordinates in fractions of the image's sides."""

    label: int
    box: tuple[float, float, float, float] | None
    """Centre x and y, width, height; None for a polygon."""
    polygon: tuple[float, ...] = ()
    """x, y, x, y, ..."""

    def instance(self, width: int, height: int) -> Instance:
        """Return it in pixels of an image."""
        if self.box is not None:
            cx, cy, w, h = self.box
            return Instance(label=self.label, box=((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height))
        polygon = [value * (height if place % 2 else width) for place, value in enumerate(self.polygon)]
        return Instance(label=self.label, box=extent([polygon]), segmentation=[polygon])


def parse_line(line: str, where: str, *, classes: int, keypoints: int = 0) -> YoloLine:
    """Return the object of a line that is not blank; `where` is its file and number, for the message.

    `keypoints` is how many numbers of keypoints stand behind the box. Raises ValueError that names the value and the
    limit for what is no number, no class, another number of numbers, or a coordinate outside of the image.
    """
    words = line.split()
    label = _number(words[0], where)
    if label % 1 or not 0 <= label < classes:
        raise ValueError(
            f"{where}: class {words[0][:40]}; the list of classes has {classes}, numbered from 0 to {classes - 1}. Add "
            "the class there, or correct the line."
        )
    values = [_number(word, where) for word in words[1:]]
    if len(values) == 5 and not keypoints:
        raise ValueError(
            f"{where}: has 6 numbers, of which the last may be a confidence: {FORM}. Predictions are no labels; remove "
            "the sixth number if they are meant as such."
        )
    polygon = not keypoints and len(values) >= 6 and len(values) % 2 == 0
    if not polygon and len(values) != 4 + keypoints:
        more = f" (and {keypoints} numbers of keypoints, by `kpt_shape`)" if keypoints else ""
        raise ValueError(f"{where}: has {len(words)} numbers ({shown(line.strip())}); {FORM}{more}.")
    placed = values if polygon else values[:4]
    for value in placed:
        if not -SLACK <= value <= 1 + SLACK:
            raise ValueError(
                f"{where}: coordinate {value:g}; coordinates are fractions of the image's sides, from 0 to 1. Divide "
                "pixels by the image's width (x) or height (y), or correct the line."
            )
    if polygon:
        return YoloLine(int(label), None, tuple(placed))
    return YoloLine(int(label), (placed[0], placed[1], placed[2], placed[3]))


def read_yolo(data: Path, *, root: Path | None = None) -> DataSet:
    """Return the YOLO data set of a folder, or of a .yaml file whose paths are below `root`, if given.

    Raises ValueError and FileNotFoundError, also while its pictures are read, that name the file and the line.
    """
    tally = Tally()
    layout = read_layout(data, tally, root=root)
    splits = {name: _pictures(layout, places, tally) for name, places in layout.splits.items()}
    return DataSet(names=layout.names, splits=splits, tally=tally)


def _pictures(layout: YoloLayout, places: tuple[Path, ...], tally: Tally) -> Iterator[Picture]:
    owners: dict[PurePosixPath, str] = {}
    for image, name in _images(layout, places, tally):
        labels = label_path(image)
        if labels in owners:
            what = "images whose label file is another image's too (same name, other ending or place), left out"
            tally.add(what, f"{image}, as {owners[labels]}")
            continue
        owners[labels] = str(image)
        path = layout.root / image
        if (size := size_of(path, tally)) is not None:
            instances = [line.instance(*size) for line in _lines(layout, labels, tally)]
            source = str(layout.root / labels)
            yield Picture(path=path, name=name, size=size, instances=instances, source=source)
    _count_orphans(layout, places, {str(labels) for labels in owners}, tally)


def _images(layout: YoloLayout, places: tuple[Path, ...], tally: Tally) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield each image's path below the root, and its name in the new folder."""
    for place in places:
        below = PurePosixPath(place.relative_to(layout.root).as_posix())
        if place.is_dir():
            for name in images_below(place, tally, ignore=(".txt", ".cache")):
                yield below / name, name if len(places) == 1 else str(below / name)
            continue
        for number, line in enumerate(read_text(place).splitlines(), start=1):
            if name := line.strip().replace("\\", "/").removeprefix("./"):
                if inside(layout.root, name, source=Path(f"{place}, line {number}"), links=True).is_file():
                    yield PurePosixPath(name), name
                else:
                    tally.add(MISSING, f"{place.name}, line {number}: {name}")


def _lines(layout: YoloLayout, labels: PurePosixPath, tally: Tally) -> Iterator[YoloLine]:
    path = layout.root / labels
    if not path.is_file():
        tally.add("images without a label file, kept as images without objects", str(labels))
        return
    lines = [(n, line) for n, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    if not lines:
        tally.add("empty label files, their images kept without objects", str(labels))
    for number, line in lines:
        where = f"{path}, line {number}"
        yield parse_line(line, where, classes=len(layout.names), keypoints=layout.keypoints)
        if layout.keypoints:
            tally.add("keypoints of objects, left out", where)


def _count_orphans(layout: YoloLayout, places: tuple[Path, ...], owned: set[str], tally: Tally) -> None:
    """Count the label files below the labels' folders of these images' folders that are no image's."""
    for place in places:
        if not place.is_dir():  # a list of images: other label files may be those of another split
            continue
        folder = label_path(PurePosixPath(place.relative_to(layout.root).as_posix()) / "x").parent
        for name in files_below_sorted(layout.root / folder):
            if name.endswith(".txt") and str(folder / name) not in owned and name not in CLASS_LISTS:
                tally.add("label files without an image, left out", str(folder / name))


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise ValueError(f"{where}: {shown(word)} is no number; {FORM}.")
    return value
