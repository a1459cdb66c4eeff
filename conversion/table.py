"""Labels in a CSV file: a line per image with its file and its class and, where there is one, its split."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conversion.class_folders import Labelled, LabelledSet
from conversion.dataset import MISSING
from detection.data.coco_fields import shown
from detection.data.defects import Tally, some
from files.naming import inside
from files.parsing import read_text

SPLIT = "train"  # of images for which the table names none


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns."""

    file: str = "file"
    """Column of the files, below the folder of the images."""
    label: str = "label"
    """Column of the classes."""
    split: str = "split"
    """Column of the splits; without it all images are for training."""


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    label: str
    split: str


def read_table(path: Path, columns: Columns, *, images: Path | None = None) -> LabelledSet:
    """Return the data set of a CSV file; images lie in `images`, or beside the file.

    Raises FileNotFoundError, and ValueError that names the line for a file with two classes.
    """
    tally, folder = Tally(), images or path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; --images names that of the images.")
    rows = list(_rows(path, columns, tally))
    if not rows:
        raise ValueError(f"{path}: has no image with a class below its first line.")
    _refuse_two_classes(rows, path)
    classes = tuple(sorted({row.label for row in rows}))
    label = {name: number for number, name in enumerate(classes)}
    splits = {
        name: _images([row for row in rows if row.split == name], path, folder, label, tally)
        for name in dict.fromkeys(row.split for row in rows)
    }
    return LabelledSet(classes=classes, splits=splits, tally=tally)


def _rows(path: Path, columns: Columns, tally: Tally) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        names = list(reader.fieldnames or ())
        for flag, name in (("file", columns.file), ("label", columns.label)):
            if name not in names:
                raise ValueError(
                    f"{path}: has no column {name!r}; it has {some(names)}. Name it with --columns.{flag}."
                )
        for row in reader:
            where = f"line {reader.line_num}"
            file, label = (str(row[name] or "").strip() for name in (columns.file, columns.label))
            if file and label:
                yield _Row(
                    reader.line_num, file.replace("\\", "/"), label, str(row.get(columns.split) or SPLIT).strip()
                )
            else:
                tally.add("lines without a file or a class, left out", f"{path.name}, {where}")
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: no CSV ({error}).") from error


def _refuse_two_classes(rows: list[_Row], path: Path) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.file, row)
        if other.label != row.label:
            raise ValueError(
                f"{path}, line {row.line}: {row.file} is of class {shown(row.label)}, on line {other.line} of "
                f"{shown(other.label)}; an image has one class here. Remove one of the lines."
            )


def _images(rows: list[_Row], path: Path, folder: Path, label: dict[str, int], tally: Tally) -> Iterator[Labelled]:
    for row in rows:
        where = f"{path}, line {row.line}"
        image = inside(folder, row.file, source=Path(where), links=True)
        if image.is_file():
            yield Labelled(label=label[row.label], name=row.file, content=image, source=where)
        else:
            tally.add(MISSING, f"{path.name}, line {row.line}: {row.file}")
