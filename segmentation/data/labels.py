"""Label maps: one channel of stored numbers, and the label mapping that says which number stands for which class.

After `decode` classes count from 0 and 255 is ignored, whatever the data set stores.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from engine.images.file import SCALED, UnreadableImageError, check_sums, opened, raw_mode

AT_ONCE = 2**22  # pixels
IGNORED = 255  # mmseg's ignore_index
MOST_CLASSES = 254  # 8-bit labels after 0 and 255 are taken
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
# Pillow's words for one channel of 1, 2, 4 or 8 bits: X with another beside it, I inverted, R from the lowest bit on
GREY = re.compile(r"(?:1|L)X?(?:;(?P<bits>[248])?(?P<inverted>I)?R?)?")
REFUSED = -1
CONVERT = "python tools/make_semantic.py colours --source DIR --out OUT --palette classes.txt"


@dataclass(frozen=True)
class LabelMapping:
    """Which stored number stands for which class; a number that stands for none is an error."""

    table: tuple[int, ...]
    """Class, IGNORED or REFUSED of the stored numbers 0 to 255."""
    says: str
    """For messages: how many classes, and which numbers they have."""


@dataclass(frozen=True)
class LabelCensus:
    """What a set of label maps holds, by stored number."""

    maps: int
    pixels: Mapping[int, int]
    """Stored number -> pixels over all maps."""
    first: Mapping[int, Path]
    """Stored number -> the first map that holds it."""
    in_maps: Mapping[int, int]
    """Stored number -> maps that hold it."""
    unreadable: tuple[str, ...]
    """Messages of maps that cannot be decoded."""


def mapped(classes: Mapping[int, int], *, ignored: Iterable[int], says: str) -> LabelMapping:
    """Return the label mapping in which number k stands for `classes[k]`."""
    rest = dict.fromkeys(ignored, IGNORED)
    return LabelMapping(tuple({**rest, **classes}.get(value, REFUSED) for value in range(256)), says)


def from_one(count: int) -> LabelMapping:
    """Return ADE20K's label mapping: 1 to `count` are classes, 0 is `other` (mmseg's `reduce_zero_label`), 255
    ignored."""
    says = f"{count} classes (labels 1 to {count}; 0 and 255 are ignored)"
    return mapped({value: value - 1 for value in range(1, count + 1)}, ignored=(0, IGNORED), says=says)


def from_nought(count: int) -> LabelMapping:
    """Return the label mapping of Cityscapes' train ids, PASCAL VOC and plain index maps: 0 to `count` - 1, 255
    ignored."""
    says = f"{count} classes (labels 0 to {count - 1}; 255 is ignored)"
    return mapped({value: value for value in range(count)}, ignored=(IGNORED,), says=says)


def read_label_map(path: Path) -> np.ndarray:
    """Return the numbers as stored, (H, W), uint8 for files of 8 bits or fewer, else int32.

    Pillow gives grey of 1, 2 and 4 bits, and TIFF's WhiteIsZero, as the brightness that is shown (of 2 bits 0, 85, 170
    and 255); that is undone. A palette's numbers are its own, and what is see-through (tRNS) changes no number.

    Raises UnreadableImageError for a broken file and ValueError for colour images and what was saved with loss.
    """
    check_sums(path)
    with opened(path, str(path)) as image:
        lossy, raw = _lossy(image), raw_mode(image)
        image.load()
        mode, values = image.mode, np.asarray(image)
    if mode not in INDEX_MODES:
        raise ValueError(f"{path}: a label map of mode {mode} ({_colours(values)}). {ONE_CHANNEL}")
    if lossy:
        raise ValueError(f"{path}: a label map saved as {lossy}, which changes its numbers; save it as PNG.")
    if raw == SCALED or (mode in ("1", "L") and not GREY.fullmatch(raw or mode)):
        raise ValueError(f"{path}: a label map of {raw} pixels, whose numbers cannot be told; save it as PNG.")
    if mode in ("1", "L"):
        return _stored(values, mode, raw or mode)
    return values.astype(np.uint8 if mode == "P" else np.int32, copy=False)


def _lossy(image: Image.Image) -> str | None:
    """Return the name of the code that the pixels are in where it keeps them only nearly; before they are loaded."""
    if image.format in ("JPEG", "JPEG2000", "MPO"):
        return image.format
    if image.format == "TIFF" and str(image.info.get("compression")) in ("jpeg", "tiff_jpeg", "webp"):
        return "TIFF with JPEG inside"
    return None


def _stored(values_HW: np.ndarray, mode: str, raw: str) -> np.ndarray:
    """Return the numbers that a file stores for its grey levels, uint8; `raw` matches GREY."""
    kind = GREY.fullmatch(raw)
    assert kind is not None
    bits = 1 if mode == "1" else int(kind["bits"] or 8)
    shown_HW = values_HW.astype(np.uint8, copy=False)  # of mode 1: 0 and 1
    if bits in (2, 4):
        shown_HW = shown_HW // np.uint8(255 // (2**bits - 1))  # exact: every level is a multiple
    return np.uint8(2**bits - 1) - shown_HW if kind["inverted"] else shown_HW


ONE_CHANNEL = f"A label map has one channel, which holds class numbers; `{CONVERT}` writes such maps from colours."


def decode(label_HW: np.ndarray, label_mapping: LabelMapping, path: Path) -> np.ndarray:
    """Return the classes from 0, 255 for what is ignored, (H, W) uint8.

    Raises ValueError that names the file and the number where one stands for no class: here, on the CPU, where a
    message is possible, and not as a failed assertion of a CUDA kernel.
    """
    for value in count_values(label_HW):
        check_label(value, path, label_mapping)
    # OpenCV's table: NumPy would make numbers of 8 bytes of the whole map first
    table = np.array(label_mapping.table).astype(np.uint8)
    decoded: np.ndarray = cv2.LUT(label_HW.astype(np.uint8, copy=False), table)
    return decoded


def check_label(value: int, path: Path, label_mapping: LabelMapping) -> None:
    """Raise ValueError where a stored number stands for no class."""
    if not 0 <= value <= IGNORED or label_mapping.table[value] == REFUSED:
        wide = " (a number of more than 8 bits)" if value > IGNORED else ""
        raise ValueError(
            f"{path}: holds label {value}{wide}, but the data set has {label_mapping.says}. Mend the map, or mend "
            "the list of classes."
        )


def count_values(label_HW: np.ndarray) -> dict[int, int]:
    """Return stored number -> pixels."""
    if label_HW.dtype == np.uint8:
        counts = np.zeros(256, dtype=np.int64)
        for part in np.array_split(label_HW.reshape(-1), 1 + label_HW.size // AT_ONCE):  # bincount takes 8 bytes each
            counts += np.bincount(part, minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return {int(value): int(pixels) for value, pixels in zip(*np.unique(label_HW, return_counts=True), strict=True)}


def take_census(paths: Iterable[Path]) -> LabelCensus:
    """Return what the maps hold. Raises ValueError for colour images."""
    maps = 0
    pixels: Counter[int] = Counter()
    in_maps: Counter[int] = Counter()
    first: dict[int, Path] = {}
    unreadable = []
    for path in paths:
        maps += 1
        try:
            found = count_values(read_label_map(path))
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        pixels.update(found)
        in_maps.update(found.keys())
        for value in found:
            first.setdefault(value, path)
    return LabelCensus(maps, pixels, first, in_maps, tuple(unreadable))


def is_binary_mask(values: Iterable[int]) -> bool:
    """Whether stored numbers are those of a black-and-white mask: both 0 and 255, and no other."""
    return set(values) == {0, IGNORED}


def _colours(values: np.ndarray) -> str:
    """Return what a map of several channels looks like."""
    if values.ndim == 2:
        return "one channel that holds no whole numbers"
    rgb = values[..., :3]
    if values.shape[2] < 3 or (rgb == rgb[..., :1]).all():
        return f"{values.shape[2]} channels, the colour ones equal: a greyscale map saved in colour; keep one of them"
    codes = rgb.astype(np.int32) @ np.array([65536, 256, 1])
    found = np.unique(codes)
    return f"{values.shape[2]} channels, {len(found)} colours: a colour-coded map"
