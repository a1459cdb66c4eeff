"""The content of a checked annotation file as flat arrays, in memory or memory-mapped from a cache file.

Loader processes share the arrays, whereas a list of a million dicts would be copied page by page as its reference
counts change; one image's record is decoded when it is asked for.

Axis letters: I images, A annotations by image, P polygons by annotation. An array of offsets has one more entry.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from detection.data.defects import Defect
from files.writing import replacing

MAGIC = b"mae-transfer annotations 3\n"  # the number changes with the layout or with what the reading cleans
ALIGNMENT = 64
BLOCK = 2**22  # bytes of which a checksum is taken at once
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}  # of LVIS's categories


@dataclass(frozen=True)
class Category:
    """A category as its file numbers it."""

    id: int | str
    name: str
    frequency: str | None = field(default=None, compare=False)
    """LVIS: a key of FREQUENCIES, by the number of training images that have it; None where not said."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Images by ascending id, annotations by image."""

    image_id_I: np.ndarray
    """As `packed_ids` keeps them."""
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
    """LVIS: ids of categories known to be absent, as `packed_ids` keeps them."""
    partial_I: np.ndarray
    """Offsets into `partial`."""
    partial: np.ndarray
    """LVIS: ids of categories of which not all objects are annotated, likewise."""


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
        crc: int = 0,
    ) -> None:
        """`file` is where the arrays are mapped from, None in memory; `crc` the checksum of what is mapped."""
        self.categories, self.defects, self.arrays, self.lvis = categories, defects, arrays, lvis
        self.file, self._crc = file, crc

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[Any, ...]]:
        """Send the path to a spawned process, and not the content of the map."""
        if self.file is not None:
            return open_store, (self.file, self._crc)
        return _rebuilt, (self.categories, self.defects, self.arrays, self.lvis)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.arrays.image_id_I)

    @property
    def image_ids(self) -> list[int] | list[str]:
        """Ids of the images, as their file has them."""
        return plain_ids(self.arrays.image_id_I)

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
        (image_id,) = plain_ids(arrays.image_id_I[index : index + 1])
        image: dict[str, Any] = {"id": image_id, "file_name": name, "height": height, "width": width}
        if self.lvis:
            image["neg_category_ids"] = plain_ids(_part(arrays.negative, arrays.negative_I, index))
            image["not_exhaustive_category_ids"] = plain_ids(_part(arrays.partial, arrays.partial_I, index))
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


def packed_ids(ids: Sequence[int] | Sequence[str]) -> np.ndarray:
    """Return ids as int64, or as JSON text where they are text or beyond 64 bits: floats would merge them."""
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in ids):
        return np.array(ids, np.int64)
    return np.array([json.dumps(value).encode() for value in ids])


def plain_ids(packed: np.ndarray) -> Any:
    """Return the list of ids that `packed_ids` was given."""
    return packed.tolist() if packed.dtype == np.int64 else [json.loads(text) for text in packed.tolist()]


def write_store(path: Path, store: Store, *, source: dict[str, Any]) -> None:
    """Write the store to one file whose header holds `source`, atomically."""
    start, places, crc = 0, {}, 0
    arrays = {field.name: np.ascontiguousarray(getattr(store.arrays, field.name)) for field in fields(Arrays)}
    for name, array in arrays.items():
        places[name] = {"start": start, "shape": array.shape, "dtype": array.dtype.str}
        padding = bytes(-array.nbytes % ALIGNMENT)
        start += array.nbytes + len(padding)
        crc = zlib.crc32(padding, zlib.crc32(array.reshape(-1).view(np.uint8).data, crc))
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
    before = len(MAGIC) + 9  # the checksum of the header, and a space
    words += b" " * (-(before + len(words) + 1) % ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + f"{zlib.crc32(words):08x} ".encode() + words + b"\n")
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)
            file.write(bytes(-array.nbytes % ALIGNMENT))


def stored_source(path: Path) -> dict[str, Any]:
    """Return what `write_store` was told of the annotation file. Raises ValueError for what is no whole store."""
    with path.open("rb") as file:
        source: dict[str, Any] = _header(path, file)["source"]
    return source


def open_store(path: Path, crc: int | None = None) -> Store:
    """Return the store with its arrays mapped from `path`. Raises ValueError for a damaged file or an old version.

    Every byte is checked once, which takes a tenth of a second for COCO's half a gigabyte; `crc` is the checksum of
    content that was checked already by the process that sends it.
    """
    with path.open("rb") as file:
        header = _header(path, file)
        begin = file.tell()
        if crc is None:
            crc = _checksum(file)
    if crc != header["crc"]:
        raise ValueError(f"{path}: damaged or replaced: its checksum is not the stated one.")
    mapped = {}
    for name, place in header["arrays"].items():
        shape, dtype = tuple(place["shape"]), np.dtype(place["dtype"])
        if 0 in shape:  # nothing that could be mapped
            mapped[name] = np.zeros(shape, dtype)
        else:
            mapped[name] = np.memmap(path, dtype, mode="r", offset=begin + place["start"], shape=shape)
    return Store(
        tuple(Category(*c) for c in header["categories"]),
        tuple(Defect(what, count, tuple(examples)) for what, count, examples in header["defects"]),
        Arrays(**mapped),
        lvis=header["lvis"],
        file=path,
        crc=crc,
    )


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    """Return the header, and leave the file where the arrays begin."""
    if file.readline() != MAGIC:
        raise ValueError(f"{path}: written by another version.")
    crc, _, words = file.readline().partition(b" ")
    words = words.removesuffix(b"\n")
    if crc != f"{zlib.crc32(words):08x}".encode():
        raise ValueError(f"{path}: damaged: the checksum of its header is not the stated one.")
    header: dict[str, Any] = json.loads(words)
    if path.stat().st_size != file.tell() + header["bytes"]:
        raise ValueError(
            f"{path}: damaged: {path.stat().st_size:,} bytes instead of {file.tell() + header['bytes']:,}."
        )
    return header


def _checksum(file: BinaryIO) -> int:
    """Return the checksum of the rest of a file; read and not mapped, so that no page of it stays in the process."""
    crc = 0
    while block := file.read(BLOCK):
        crc = zlib.crc32(block, crc)
    return crc


def _part(values: np.ndarray, offsets: np.ndarray, number: int) -> np.ndarray:
    first, end = offsets[number : number + 2].tolist()
    return np.asarray(values[first:end])


def _rebuilt(categories: tuple[Category, ...], defects: tuple[Defect, ...], arrays: Arrays, lvis: bool) -> Store:
    return Store(categories, defects, arrays, lvis=lvis)
