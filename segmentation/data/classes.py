"""What the classes of a data set are called, their colours, and the numbers that known data sets store for them."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.palette import told_apart
from files.parsing import read_text
from files.writing import replacing
from segmentation.data.labels import LabelMapping, from_nought, mapped
from segmentation.data.pairs import Pair, some
from segmentation.host import ADE20KDataset, CityscapesDataset, COCOStuffDataset, PascalVOCDataset

CLASS_LIST = "classes.txt"
LABEL_MAP = "labelmap.txt"  # CVAT's class list
LABEL_MAP_HEAD = "#label:color_rgb:"
Colour = tuple[int, int, int]
# labelIds of the 19 classes that are trained on, in the order of their train ids (cityscapesScripts, helpers/labels.py)
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_LAST_ID = 33  # -1, the licence plate, is stored as 255
# numbers of COCO's 182 stuff and thing categories that no image holds, less 1 as the pixel maps store them
COCO_STUFF_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
COCO_STUFF_LAST = 181


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, in the order of their numbers."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...] | None
    """RGB per class; None has colours that can be told apart (engine.palette)."""


def ade20k() -> Classes:
    """Return ADE20K's 150 classes."""
    return _of(ADE20KDataset)


def cityscapes() -> Classes:
    """Return the 19 classes of Cityscapes that are scored."""
    return _of(CityscapesDataset)


def voc() -> Classes:
    """Return PASCAL VOC's background and 20 classes."""
    return _of(PascalVOCDataset)


def coco_stuff() -> Classes:
    """Return COCO-Stuff's 171 classes."""
    return _of(COCOStuffDataset)


def palette_of(classes: Classes) -> np.ndarray:
    """Return RGB per class, (classes, 3) uint8: the data set's colours, or else such as can be told apart."""
    if classes.palette is not None:
        return np.array(classes.palette, dtype=np.uint8)
    return told_apart(len(classes.names))


def cityscapes_ids() -> LabelMapping:
    """Return the label mapping of `_labelIds` maps: 19 of the numbers 0 to 33 are classes, the others are ignored."""
    table = {number: index for index, number in enumerate(CITYSCAPES_IDS)}
    says = "19 classes (Cityscapes' labelIds 0 to 33, of which 19 are scored; 255 is ignored)"
    return mapped(table, ignored=(*range(CITYSCAPES_LAST_ID + 1), 255), says=says)


def coco_stuff_ids() -> LabelMapping:
    """Return the label mapping of COCO-Stuff's own pixel maps: category id less 1, with gaps; 255 is ignored."""
    used = [number for number in range(COCO_STUFF_LAST + 1) if number not in COCO_STUFF_UNUSED]
    says = "171 classes (COCO-Stuff's pixel maps: 0 to 181 without 11 unused numbers; 255 is ignored)"
    return mapped({number: index for index, number in enumerate(used)}, ignored=(255,), says=says)


def named_label_mapping(classes: Classes, pairs: list[Pair], suffix: str, other: LabelMapping) -> LabelMapping:
    """Return `other` where label maps lack the suffix of files whose numbers are train ids already.

    Raises ValueError where only some have it.
    """
    named = [pair.labels.stem.endswith(suffix) for pair in pairs]
    if any(named) and not all(named):
        without = next(pair.labels for pair, has in zip(pairs, named, strict=True) if not has)
        raise ValueError(f"{without}: lacks {suffix}, which other label maps of its split have; use one kind.")
    return from_nought(len(classes.names)) if all(named) else other


def read_object_info(root: Path) -> Classes | None:
    """Return the classes that ADE20K's `objectInfo<N>.txt` lists, or None without such a file."""
    files = sorted(root.glob("objectInfo*.txt"))
    if not files:
        return None
    if len(files) > 1:
        raise ValueError(f"{root}: holds {len(files)} class lists ({some([f.name for f in files])}); keep one.")
    text = read_text(files[0])
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        numbers, names = [int(row["Idx"]) for row in rows], tuple(row["Name"].strip() for row in rows)
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise ValueError(
            f"{files[0]}: not a tab-separated class list with columns Idx and Name ({error!r})."
        ) from error
    if not rows or "" in names:
        raise ValueError(f"{files[0]}: {'names a class with nothing' if rows else 'lists no class'}.")
    if numbers != list(range(1, len(rows) + 1)):
        raise ValueError(f"{files[0]}: column Idx must count 1, 2, 3, ... up to {len(rows)}; found {numbers[:10]}.")
    return Classes(names, ade20k().palette if len(names) == 150 else None)


def read_class_list(path: Path) -> Classes:
    """Return the classes of a `classes.txt`: a name a line, the first for label 0, a tab and #rrggbb behind it or not.

    CVAT's labelmap.txt is read as well. Raises FileNotFoundError, and ValueError for an empty list, a name twice, and
    colours that are not such or not all there.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such class list; write one name a line, the first for label 0. A tab and a colour such as "
            "#ff8000 may follow each."
        )
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if path.name == LABEL_MAP or (lines and lines[0].replace(" ", "").startswith(LABEL_MAP_HEAD)):
        lines = [_label_map_line(line, path) for line in lines if not line.lstrip().startswith("#")]
    if not lines:
        raise ValueError(f"{path}: lists no class; write one name a line, the first for label 0.")
    names, _, colours = zip(*(line.partition("\t") for line in lines), strict=True)
    names = tuple(name.strip() for name in names)
    if "" in names:
        raise ValueError(f"{path}: line {names.index('') + 1} of those that are not empty has a colour and no name.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: lists {some(twice)} more than once.")
    if not any(colour.strip() for colour in colours):
        return Classes(names, None)
    return Classes(names, tuple(_colour(colour.strip(), path) for colour in colours))


def listed_classes(root: Path) -> Path:
    """Return the path of the class list in `root`: classes.txt, or CVAT's where that alone is there."""
    cvat = root / LABEL_MAP
    return cvat if cvat.is_file() and not (root / CLASS_LIST).is_file() else root / CLASS_LIST


def write_class_list(path: Path, classes: Classes) -> None:
    """Write what `read_class_list` reads."""
    colours = classes.palette or (None,) * len(classes.names)
    lines = [
        name if colour is None else f"{name}\t#{bytes(colour).hex()}"
        for name, colour in zip(classes.names, colours, strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _of(dataset: type) -> Classes:
    known = dataset.METAINFO  # type: ignore[attr-defined]
    return Classes(tuple(known["classes"]), tuple((r, g, b) for r, g, b in known["palette"]))


def _label_map_line(line: str, path: Path) -> str:
    """Return a line of CVAT's labelmap.txt, `name:red,green,blue:parts:actions`, as a line of a `classes.txt`."""
    name, *rest = line.strip().rsplit(":", 3)
    numbers = rest[0].split(",") if len(rest) == 3 and rest[0].strip() else []
    known = [int(number) for number in numbers if re.fullmatch(r"\s*[0-9]{1,3}\s*", number)]
    if (
        not name.strip()
        or len(rest) != 3
        or len(known) != len(numbers)
        or len(known) not in (0, 3)
        or max(known, default=0) > 255
    ):
        raise ValueError(f"{path}: {line[:200]!r} is not name:red,green,blue:parts:actions, as CVAT writes it.")
    return f"{name}\t#{bytes(known).hex()}" if known else name


def _colour(text: str, path: Path) -> Colour:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"{path}: {text!r} is no colour; write #rrggbb behind every name, or behind none.")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
