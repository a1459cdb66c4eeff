"""Examples and queries in folders of images, and answers as files: no annotations, no score.

Examples are images with masks: `masks/STEM.png` in their folder, or `STEM.png` beside an image that is no PNG; a pixel
that is not 0 is foreground. Or with boxes: `boxes.json`, in the form that the answers are written in.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.drawing import drawn
from engine.images.file import UnreadableImageError, upright_size
from engine.images.reading import find_images
from files.naming import distinct_stems, nearest
from files.parsing import read_json
from files.writing import replacing
from metrics.foreground import Box, filled
from segmentation.data.labels import read_label_map
from segmentation.in_context.answers import Asked, Method
from segmentation.in_context.config import InContextConfig
from segmentation.in_context.images import Size, foreground, largest_box, read_example, read_resized
from segmentation.in_context.pictures import MOST_ROWS, NAME, Row, draw_rows

MASKS, BOXES = "masks", "boxes.json"


@dataclass(frozen=True, kw_only=True)
class FromFolder:
    """An example in a folder."""

    path: Path
    mask_path: Path | None
    """None where it has a box."""
    box: Box

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    def mask(self) -> np.ndarray:
        """Return what is not 0 in the mask's file, or the box, filled, (H, W) bool."""
        if self.mask_path is not None:
            return np.asarray(read_label_map(self.mask_path) != 0)
        width, height = upright_size(self.path)
        return filled(self.box, (height, width))


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What was written."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def examples_in(folder: Path) -> list[FromFolder]:
    """Return the examples that lie in a folder, by name.

    Raises FileNotFoundError where there is no image, or an image has no mask, and ValueError for boxes that are none.
    """
    images = [path for path in find_images(folder) if path.parent == folder]
    if (folder / BOXES).is_file() and not (folder / MASKS).is_dir():
        return _with_boxes(folder, images)
    if (folder / MASKS).is_dir():
        pairs = {path: folder / MASKS / f"{path.stem}.png" for path in images}
    else:
        stems = {path.stem for path in images if path.suffix.lower() != ".png"}
        others = [path for path in images if path.suffix.lower() != ".png" or path.stem not in stems]
        pairs = {path: path.with_suffix(".png") for path in others}
    if not pairs:
        raise FileNotFoundError(f"{folder}: holds no image of its own, only its subfolders do; examples lie in it.")
    for path, mask in pairs.items():
        if mask == path or not mask.is_file():
            there = [] if mask == path else [other.name for other in mask.parent.glob("*")]
            raise FileNotFoundError(
                f"{path}: has no mask; a PNG {folder / MASKS / (path.stem + '.png')}, 0 where it is background, says "
                f"which pixels are the object{nearest([mask.name], there)}. {folder / BOXES} with boxes would do too."
            )
    return [FromFolder(path=path, mask_path=mask, box=(0.0, 0.0, 0.0, 0.0)) for path, mask in pairs.items()]


def _with_boxes(folder: Path, images: Sequence[Path]) -> list[FromFolder]:
    path = folder / BOXES
    listed = read_json(path)
    by_name: dict[str, Any] = {}
    for entry in listed if isinstance(listed, list) else [None]:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not _is_box(entry.get("box")):
            raise ValueError(
                f'{path}: {str(entry)[:100]} is no box; give a list of {{"image": NAME, "box": [left, top, width, '
                "height]}} in pixels."
            )
        if by_name.setdefault(entry["image"], entry["box"]) is not entry["box"]:
            raise ValueError(f"{path}: names {entry['image']!r} twice; an example has one box.")
    names = {image.name for image in images}
    for missing in (names - by_name.keys(), by_name.keys() - names):
        if missing:
            name = sorted(missing)[0]
            what = "has no box in it" if name in names else f"is no image in {folder}"
            raise FileNotFoundError(f"{path}: {name!r} {what}{nearest([name], names | by_name.keys())}.")
    found = []
    for image in images:
        left, top, width, height = map(float, by_name[image.name])
        found.append(FromFolder(path=image, mask_path=None, box=(left, top, width, height)))
    return found


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**31]
    return len(numbers) == 4 and min(numbers[2:]) > 0


def answer_folder(config: InContextConfig, method: Method, *, examples: Path, queries: Path, out: Path) -> Answered:
    """Write OUT/masks/STEM.png and OUT/boxes.json, an entry for each query, and a picture of the first.

    All examples are shown with each query. A query that cannot be read is left out, with a note. Raises what
    `examples_in` raises, UnreadableImageError for an example, and ValueError where no query can be read.
    """
    shown = [read_example(picture, method.size) for picture in examples_in(examples)]
    paths = find_images(queries)
    asked: list[Asked] = []
    kept: list[tuple[Path, Size]] = []
    notes = [f"{len(shown)} examples"]
    for path in paths:
        try:
            image, size = read_resized(path, method.size)
        except UnreadableImageError as error:
            notes.append(f"left out: {error}")
            continue
        asked.append(Asked(image=image, shown=tuple(range(len(shown)))))
        kept.append((path, size))
    if not asked:
        raise ValueError(
            f"{queries}: none of its {len(paths)} images can be read; the first: {notes[1][len('left out: ') :]}"
        )
    names = [path.relative_to(queries).as_posix() for path, _ in kept]
    stems = distinct_stems([path.stem for path, _ in kept], names)
    entries: list[dict[str, Any]] = []
    rows: list[Row] = []
    for (path, size), name, stem, answer in zip(kept, names, stems, method.answers(shown, asked), strict=True):
        share_hw = answer.share_hw[config.leading]
        predicted_HW = foreground(share_hw, size, config.threshold)
        box = largest_box(predicted_HW)
        with replacing(out / MASKS / f"{stem}.png") as temporary:
            Image.fromarray(predicted_HW.astype(np.uint8) * 255).save(temporary, format="PNG")
        shares = {"foreground_share": float(predicted_HW.mean()), "highest_share": float(share_hw.max())}
        entries.append({"image": name, "box": box, "mask": f"{MASKS}/{stem}.png", **shares})
        if len(rows) < MOST_ROWS:
            rows.append(
                Row(
                    title=name,
                    path=path,
                    predicted_HW=predicted_HW,
                    box=box,
                    truth_HW=None,
                    true_box=None,
                    examples=tuple(shown),
                    answer=answer,
                    grid=config.backbone.grid,
                )
            )
    with replacing(out / BOXES) as temporary:
        temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    if empty := sum(entry["box"] is None for entry in entries):
        notes.append(
            f"queries without a foreground pixel, whose box is null: {empty} of {len(entries)}; --threshold is "
            f"{config.threshold:g}, and a lower one finds more"
        )
    pictures = drawn(NAME, lambda: [draw_rows(out / NAME, rows)], notes.append)
    return Answered(files=(out / MASKS, out / BOXES, *pictures), notes=tuple(notes))
