"""Writing a data set in the COCO layout: `train2017/`, `val2017/`, `annotations/instances_{train,val}2017.json`.

Annotations go to the disk as they come; of a split only its images' names and sizes are held.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.dataset import DataSet, Instance, Picture, usual_splits, validation_note
from detection.data.coco_masks import read_mask
from files.naming import inside
from files.writing import link_or_copy, new_folder


@dataclass
class _Count:
    images: int = 0
    empty: int = 0
    objects: int = 0
    crowds: int = 0
    masks: int = 0


def write_coco(data: DataSet, out: Path, *, copy: bool = False, boxes_only: bool = False) -> list[str]:
    """Write the data set to `out`, a new folder, and return a line for each split and for what was left out.

    Images become links to their files, or with `copy` copies. Raises ValueError for a split without an image, two
    images of one name, a segmentation that is none, and objects of which only some have one, unless `boxes_only`.
    """
    folders = usual_splits(data.splits, behind="2017")
    counts: dict[str, _Count] = {}
    with new_folder(out) as folder:
        for name, pictures in data.splits.items():
            counts[name] = _write_split(folder, folders[name], pictures, data, copy=copy, boxes_only=boxes_only)
            if not counts[name].images:
                lost = "; ".join(data.left_out())
                raise ValueError(f"{out}: the split {name!r} has no image that can be used{': ' * bool(lost)}{lost}.")
        total, masks = (sum(getattr(count, what) for count in counts.values()) for what in ("objects", "masks"))
        if masks not in (0, total):
            raise ValueError(
                f"{out}: {masks} of {total} objects have a polygon or a mask, the others a box alone; masks are "
                "trained where all have one. Give --boxes-only to keep the boxes of all."
            )
    lines = [
        f"{folders[name]}: {c.images} images of split {name!r}, {c.empty} of them without an object; {c.objects} "
        f"objects" + f", {c.crowds} of them crowds" * bool(c.crowds) + ", all with a mask" * bool(c.masks)
        for name, c in counts.items()
    ]
    return [*lines, *data.left_out(), *validation_note(folders.values(), "train_det", out)]


def _write_split(
    root: Path, split: str, pictures: Iterable[Picture], data: DataSet, *, copy: bool, boxes_only: bool
) -> _Count:
    count, images, taken = _Count(), [], dict[str, str]()
    target = root / "annotations" / f"instances_{split}.json"
    target.parent.mkdir(exist_ok=True)
    (root / split).mkdir()
    categories = [{"id": number, "name": name} for number, name in enumerate(data.names, start=1)]
    with target.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {{}},\n"categories": {json.dumps(categories)},\n"annotations": [')
        for picture in pictures:
            if (other := taken.setdefault(picture.name, picture.source)) != picture.source:
                raise ValueError(f"{picture.source}: its image {picture.name!r} is also that of {other}; rename one.")
            link_or_copy(picture.path, inside(root / split, picture.name, source=Path(picture.source)), copy=copy)
            width, height = picture.size
            count.images += 1
            images.append({"id": count.images, "file_name": picture.name, "width": width, "height": height})
            count.empty += not picture.instances
            for annotation in _annotations(picture, count, data, boxes_only=boxes_only):
                file.write(",\n" * (count.objects > 1) + json.dumps(annotation))
        file.write(f'],\n"images": {json.dumps(images)}}}\n')
    return count


def _annotations(picture: Picture, count: _Count, data: DataSet, *, boxes_only: bool) -> Iterator[dict[str, Any]]:
    for instance in picture.instances:
        count.objects += 1
        count.crowds += instance.crowd
        has_mask = instance.segmentation is not None
        if has_mask and boxes_only:
            data.tally.add("polygons and masks, left out by --boxes-only", picture.name)
        yield {
            "id": count.objects,
            "image_id": count.images,
            "category_id": instance.label + 1,
            "bbox": list(instance.box),
            "area": _area(instance, picture),
            "iscrowd": int(instance.crowd),
            **({"segmentation": instance.segmentation} if has_mask and not boxes_only else {}),
        }
        count.masks += has_mask and not boxes_only


def _area(instance: Instance, picture: Picture) -> float:
    """Return the stated area, or that of the mask or the box; ValueError for a segmentation that is none."""
    area = instance.box[2] * instance.box[3]
    if instance.segmentation is not None:
        width, height = picture.size
        try:
            area = float(read_mask(instance.segmentation, height=height, width=width).pixels) or area
        except ValueError as error:
            raise ValueError(f"{picture.source}: an object of {picture.name} {error}") from error
    return area if instance.area is None else instance.area
