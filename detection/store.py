"""The content of a checked annotation file as flat arrays, in memory or memory-mapped from a cache file.

Loader processes share the arrays, whereas a list of a million dicts would be copied page by page as its reference
counts change; one image's record is decoded when it is asked for.

Axis letters: I images, A annotations by image, P polygons by annotation. An array of offsets has one more entry.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from files.writing import replacing

MAGIC = b"mae-transfer annotations 3\n"  # the number changes with the layout or with what the reading cleans
ALIGNMENT = 64
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}  # of LVIS's categories


@dataclass(frozen=True)
class Category:
    """A category as its file numbers it."""

    id: int | str
    name: str
    frequency: str | None = field(default=None, compare=False)
    """LVIS: a key of FREQUENCIES, by the number of training images that have it; None where not said."""


@dataclass(frozen=True)
class Defect:
    """Something wrong in single annotations, and how it is treated."""

    what: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Images by ascending id, annotations by image."""

    image_id_I: np.ndarray
    """int64, or text."""
    name_I: np.ndarray
    """File names, UTF-8 bytes."""
    size_I2: np.ndarray
    """Height and width."""
    annotation_I: np.ndarray
    """Offsets into A."""
    box_A4: np.ndarray
    """x, y, width, height in pixels."""
    area_A: np.ndarray
    class_A: np.ndarray
    """Index into the categories."""
    crowd_A: np.ndarray
    polygon_A: np.ndarray
    """Offsets into P."""
    point_P: np.ndarray
    """Offsets into `point`."""
    point: np.ndarray
    """x and y by turns."""
    run_A: np.ndarray
    """Offsets into `run`."""
    run: np.ndarray
    """Compressed run lengths, bytes of text."""
    negative_I: np.ndarray
    """Offsets into `negative`."""
    negative: np.ndarray
    """LVIS: ids of categories known to be absent."""
    partial_I: np.ndarray
    """Offsets into `partial`."""
    partial: np.ndarray
    """LVIS: ids of categories of which not all objects are annotated."""


class Store:
    """What is left of an annotation file after its reading: categories, arrays, and what was dropped or clipped."""

    def __init__(
        self,
        categories: tuple[Category, ...],
        defects: tuple[Defect, ...],
        arrays: Arrays,
        *,
        lvis: bool,
        file: Path | None = None,
    ) -> None:
        """`file` is where the arrays are mapped from, None in memory."""
        self.categories, self.defects, self.arrays, self.lvis, self.file = categories, defects, arrays, lvis, file

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[Any, ...]]:
        """Send the path to a spawned process, and not the content of the map."""
        if self.file is not None:
            return open_store, (self.file,)
        return _rebuilt, (self.categories, self.defects, self.arrays, self.lvis)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.arrays.image_id_I)

    @property
    def with_mask(self) -> int:
        """Number of annotations that have a segmentation."""
        arrays = self.arrays
        return int(((np.diff(arrays.polygon_A) > 0) | (np.diff(arrays.run_A) > 0)).sum())

    @property
    def objects_I(self) -> np.ndarray:
        """Annotations per image that are no crowds."""
        before = np.concatenate([[0], np.cumsum(~self.arrays.crowd_A)])
        return np.diff(before[self.arrays.annotation_I])

    def image(self, index: int) -> dict[str, Any]:
        """Return an image as COCO's `images` list has it."""
        arrays = self.arrays
        height, width = arrays.size_I2[index].tolist()
        name = arrays.name_I[index].decode("utf-8")
        image = {"id": arrays.image_id_I[index].item(), "file_name": name, "height": height, "width": width}
        if self.lvis:
            image["neg_category_ids"] = _part(arrays.negative, arrays.negative_I, index).tolist()
            image["not_exhaustive_category_ids"] = _part(arrays.partial, arrays.partial_I, index).tolist()
        return image

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """Return the image's annotations in COCO's form, `category_id` the class; `id` counts over the file from 1."""
        arrays = self.arrays
        first, end = arrays.annotation_I[index : index + 2].tolist()
        size = arrays.size_I2[index].tolist()
        rows = zip(
            arrays.class_A[first:end].tolist(),
            arrays.crowd_A[first:end].tolist(),
            arrays.box_A4[first:end].tolist(),
            arrays.area_A[first:end].tolist(),
            strict=True,
        )
        found = []
        for number, (class_number, crowd, box, area) in enumerate(rows, start=first):
            annotation = {"id": number + 1, "iscrowd": int(crowd), "bbox": box, "area": area}
            annotation["category_id"] = class_number
            if len(text := _part(arrays.run, arrays.run_A, number)):
                annotation["segmentation"] = {"size": size, "counts": text.tobytes().decode("ascii")}
            polygons = range(*arrays.polygon_A[number : number + 2].tolist())
            if polygons:
                annotation["segmentation"] = [_part(arrays.point, arrays.point_P, p).tolist() for p in polygons]
            found.append(annotation)
        return found


def write_store(path: Path, store: Store, *, source: dict[str, Any]) -> None:
    """Write the store to one file whose header holds `source`, atomically."""
    start, places, crc = 0, {}, 0
    arrays = {field.name: np.ascontiguousarray(getattr(store.arrays, field.name)) for field in fields(Arrays)}
    for name, array in arrays.items():
        places[name] = {"start": start, "shape": array.shape, "dtype": array.dtype.str}
        start += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        crc = _checked(name, array, crc)
    header = {
        "source": source,
        "categories": [[c.id, c.name, c.frequency] for c in store.categories],
        "defects": [[d.what, d.count, d.examples] for d in store.defects],
        "lvis": store.lvis,
        "arrays": places,
        "bytes": start,
        "crc": crc,
    }
    words = json.dumps(header).encode()
    text = MAGIC + f"{zlib.crc32(words):08x} ".encode() + words
    text += b" " * (-(len(text) + 1) % ALIGNMENT) + b"\n"
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(text)
        for array in arrays.values():
            file.write(array.tobytes())
            file.write(bytes(-array.nbytes % ALIGNMENT))


def stored_source(path: Path) -> dict[str, Any]:
    """Return what `write_store` was told of the annotation file. Raises ValueError for what is no whole store."""
    source: dict[str, Any] = _header(path)[0]["source"]
    return source


def open_store(path: Path) -> Store:
    """Return the store with its arrays mapped from `path`. Raises ValueError for a damaged file or an old version.

    The checksum covers everything but coordinates and run lengths, whose reading would take longer than a start should.
    """
    header, begin = _header(path)
    mapped = {}
    crc = 0
    for name, place in header["arrays"].items():
        shape, dtype = tuple(place["shape"]), np.dtype(place["dtype"])
        if 0 in shape:  # nothing that could be mapped
            array: np.ndarray = np.zeros(shape, dtype)
        else:
            array = np.memmap(path, dtype, mode="r", offset=begin + place["start"], shape=shape)
        crc = _checked(name, array, crc)
        mapped[name] = array
    if crc != header["crc"]:
        raise ValueError(f"{path}: damaged: its checksum is not the stated one.")
    return Store(
        tuple(Category(*c) for c in header["categories"]),
        tuple(Defect(what, count, tuple(examples)) for what, count, examples in header["defects"]),
        Arrays(**mapped),
        lvis=header["lvis"],
        file=path,
    )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and where the arrays begin."""
    with path.open("rb") as file:
        if file.readline() != MAGIC:
            raise ValueError(f"{path}: written by another version.")
        crc, _, words = file.readline().partition(b" ")
        if crc != f"{zlib.crc32(words.rstrip()):08x}".encode():
            raise ValueError(f"{path}: damaged: the checksum of its header is not the stated one.")
        header: dict[str, Any] = json.loads(words)
        begin = file.tell()
    if path.stat().st_size != begin + header["bytes"]:
        raise ValueError(f"{path}: damaged: {path.stat().st_size:,} bytes instead of {begin + header['bytes']:,}.")
    return header, begin


def _checked(name: str, array: np.ndarray, crc: int) -> int:
    return crc if name in ("point", "run") else zlib.crc32(array.tobytes(), crc)


def _part(values: np.ndarray, offsets: np.ndarray, number: int) -> np.ndarray:
    first, end = offsets[number : number + 2].tolist()
    return np.asarray(values[first:end])


def _rebuilt(categories: tuple[Category, ...], defects: tuple[Defect, ...], arrays: Arrays, lvis: bool) -> Store:
    return Store(categories, defects, arrays, lvis=lvis)
