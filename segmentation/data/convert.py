"""Colour-coded and black-and-white masks turned into index maps, by a list of classes with their colours."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from engine.images.file import check_sums, opened, raw_mode
from engine.images.reading import find_images
from files.naming import refuse_within
from files.writing import replacing
from segmentation.data.classes import Classes, read_class_list
from segmentation.data.labels import IGNORED

RADIX = (65536, 256, 1)
AT_ONCE = 2**22  # pixels


def colours_to_labels(rgb_HW3: np.ndarray, classes: Classes, path: Path, *, ignore: tuple[int, ...] = ()) -> np.ndarray:
    """Return the classes from 0, (H, W) uint8; 255 where the colour is `ignore` (red, green, blue).

    Raises ValueError that names the colours which are no class's: a mask saved as JPEG has thousands of them.
    """
    if classes.palette is None:
        raise ValueError("the class list has no colours; write a tab and #rrggbb behind every name.")
    codes = [_code(colour) for colour in classes.palette]
    if len(set(codes)) < len(codes):
        raise ValueError("two classes have the same colour; give each its own.")
    of_code = {code: number for number, code in enumerate(codes)}
    if any(not 0 <= part <= 255 for part in ignore):
        raise ValueError(f"--ignore {' '.join(map(str, ignore))}: red, green and blue must be from 0 to 255.")
    if ignore:
        of_code.setdefault(_code(ignore), IGNORED)
    label_HW, strange = codes_to_labels(rgb_HW3, RADIX, of_code)
    if strange:
        most = [f"#{code:06x} ({pixels} pixels)" for code, pixels in strange.most_common(5)]
        raise ValueError(
            f"{path}: {len(strange)} colours stand for no class: {', '.join(most)}. Add them to the class list, name "
            "one with --ignore, or save the mask without loss (PNG) and without smoothing."
        )
    return label_HW


def codes_to_labels(
    rgb_HW3: np.ndarray, radix: tuple[int, int, int], of_code: Mapping[int, int]
) -> tuple[np.ndarray, Counter[int]]:
    """Return the label of every pixel, (H, W) uint8, IGNORED for codes without one; and the pixels of such codes.

    The code of a pixel is red, green and blue times `radix`. Some rows at a time: a code takes four bytes and its place
    eight, of 100 megapixels a GB and more.
    """
    known = np.array(sorted(of_code), dtype=np.int32)
    label_of = np.array([of_code[code] for code in known.tolist()], dtype=np.uint8)
    height, width = rgb_HW3.shape[:2]
    label_HW = np.empty((height, width), dtype=np.uint8)
    strange: Counter[int] = Counter()
    rows = max(1, AT_ONCE // max(1, width))
    for top in range(0, height, rows):
        code_HW = rgb_HW3[top : top + rows].astype(np.int32) @ np.array(radix, dtype=np.int32)
        place_HW = np.searchsorted(known, code_HW).clip(max=len(known) - 1)
        other_HW = known[place_HW] != code_HW
        label_HW[top : top + rows] = np.where(other_HW, np.uint8(IGNORED), label_of[place_HW])
        if other_HW.any():
            found = np.unique(code_HW[other_HW], return_counts=True)
            strange.update(dict(zip(*(part.tolist() for part in found), strict=True)))
    return label_HW, strange


def _code(colour: tuple[int, ...]) -> int:
    return sum(part * weight for part, weight in zip(colour, RADIX, strict=True))


def convert_colours(source: Path, out: Path, palette: Path, *, ignore: tuple[int, ...] = ()) -> list[Path]:
    """Write `out/x.png`, an index map, for every mask `source/x.*`, and return the paths.

    `palette` is a `classes.txt` with colours. Raises ValueError that names the first mask that cannot be converted, and
    before anything is written for an `out` within `source`, a file that exists, and two masks that would become one.
    """
    refuse_within(out, [source])
    classes = read_class_list(palette)
    targets: dict[Path, Path] = {}
    for path in find_images(source):
        target = out / path.relative_to(source).with_suffix(".png")
        if target in targets:
            raise ValueError(f"{path}: would become {target.name}, as {targets[target].name} does; rename one.")
        if target.exists():
            raise ValueError(f"{target}: exists already; give a new --out.")
        targets[target] = path
    for target, path in targets.items():
        write_labels(target, colours_to_labels(read_colours(path), classes, path, ignore=ignore))
    return list(targets)


def write_labels(path: Path, label_HW: np.ndarray, palette_C3: np.ndarray | None = None) -> Path:
    """Write the numbers as an 8-bit PNG, with a palette that viewers show them in where one is given."""
    image = Image.fromarray(np.ascontiguousarray(label_HW, dtype=np.uint8))
    if palette_C3 is not None:
        # attached, not converted: the numbers stay; what has no colour (255: ignored) is black
        rows = np.zeros((256, 3), dtype=np.uint8)
        rows[: len(palette_C3)] = palette_C3
        image.putpalette(rows.reshape(-1).tolist())
    with replacing(path) as temporary:
        image.save(temporary, format="png")
    return path


def read_colours(path: Path) -> np.ndarray:
    """Return the colours that a file stores, (H, W, 3) uint8: not turned, not blended with its alpha, not scaled.

    Numbers of more than 8 bits are taken where 8 say the same: up to 255 in grey, multiples of 257, and in colour of
    256. Raises UnreadableImageError, and ValueError for other deep images, whose colours would fall together.
    """
    check_sums(path)
    with opened(path, str(path)) as image:
        raw, kind = raw_mode(image), image.mode
        image.load()
        values = np.asarray(image if kind[0] in "IF" else image.convert("RGB"))
    deep = raw.startswith(("RGB", "LA")) and ";16" in raw
    if deep and (read := cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) is not None:  # Pillow drops the lower 8 bits
        values = read[..., 2::-1]
    if kind[0] in "IF":
        values = np.repeat(values[..., None], 3, axis=2)
        if values.min() >= 0 and values.max() <= 255 and (values == np.floor(values)).all():
            return values.astype(np.uint8)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16 and not (values % 257).any():
        return (values // 257).astype(np.uint8)
    if values.dtype == np.uint16 and deep and not (values % 256).any():
        return (values // 256).astype(np.uint8)
    raise ValueError(
        f"{path}: colours of more than 8 bits ({values.dtype}, up to {values.max():g}), which 8 bits cannot hold; save "
        "the mask with 8."
    )
