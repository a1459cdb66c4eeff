"""Reading any photograph as 8-bit RGB, or a clear error that names the file; and the images of a folder, in one order.

A folder holds images as files or packed into tar shards: `open_images` gives either as one ImageSource.
"""

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np
from PIL import Image, ImageOps

from engine.tar_images import ARCHIVES, COMPRESSED, Shards, ending_of, open_shards

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


T = TypeVar("T")


class UnreadableImageError(Exception):
    """An image file that cannot be decoded; training counts it and goes on to another."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it survives pickling between processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: unreadable image ({self.reason})."


def read_rgb(path: str | Path) -> Image.Image:
    """Return the whole image, upright (EXIF orientation applied), as 8-bit RGB.

    Grey, palette, CMYK and alpha are converted; 16-bit and float grey (0 to 1, 255 or
    65535) are scaled to 8 bits. Raises
    UnreadableImageError for a missing, empty, truncated or undecodable file.
    """
    return _decoded(path, str(path))


class ImageSource(Protocol):
    """Images without labels, in one order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of them."""

    def __len__(self) -> int:
        """How many there are."""

    def image_id(self, index: int) -> str:
        """The name of an image below the folder."""

    def read(self, index: int) -> Image.Image:
        """The image as `read_rgb` gives it. Raises UnreadableImageError."""


class ImageFiles:
    """Image files below a folder, in the order given."""

    def __init__(self, root: Path, files: list[Path], notes: tuple[str, ...] = ()) -> None:
        self.root, self.files, self.notes = root, files, notes

    def __len__(self) -> int:
        return len(self.files)

    def image_id(self, index: int) -> str:
        """The path below the folder."""
        return str(self.files[index].relative_to(self.root))

    def read(self, index: int) -> Image.Image:
        """The image. Raises UnreadableImageError."""
        return read_rgb(self.files[index])


class PackedImages:
    """Image files in tar shards below a folder."""

    def __init__(self, root: Path, shards: Shards, notes: tuple[str, ...]) -> None:
        self.root, self.shards, self.notes = root, shards, notes

    def __len__(self) -> int:
        return len(self.shards)

    def image_id(self, index: int) -> str:
        """The path of the shard below the folder, and the name in it."""
        shard, name = self.shards.place(index)
        return f"{shard.relative_to(self.root)}/{name}"

    def read(self, index: int) -> Image.Image:
        """The image. Raises UnreadableImageError."""
        shard, name = self.shards.place(index)
        try:
            content = self.shards.read(index)
        except OSError as error:
            raise UnreadableImageError(f"{shard}/{name}", str(error)) from error
        return _decoded(io.BytesIO(content), f"{shard}/{name}")


def open_images(folder: Path) -> ImageSource:
    """Return every image below `folder`: files sorted by path, or what tar shards hold, by shard and place in it.

    Raises FileNotFoundError where there is none, and ValueError where there are both, or a shard cannot be read at any
    place because it is compressed, truncated or damaged.
    """
    files = _files_below(folder)
    images = [path for path in files if path.name.lower().endswith(EXTENSIONS)]
    compressed = [path for path in files if path.name.lower().endswith(COMPRESSED)]
    packed = [path for path in files if path.name.lower().endswith(ARCHIVES)]
    if images and (archives := packed or compressed):
        raise ValueError(
            f"{folder}: holds {len(images)} image files ({images[0].relative_to(folder)}, ...) and {len(archives)} "
            f"archives ({archives[0].relative_to(folder)}, ...), and only one of them can be what is meant; move the "
            "other to another folder."
        )
    if compressed:
        first = compressed[0]
        raise ValueError(
            f"{first}: compressed, so that no image in it can be read by itself; decompress it (`gunzip` for .gz and "
            f".tgz, `bunzip2`, `unxz`, `zstd -d`: JPEGs are hardly larger for it) and keep the .tar alone, or unpack "
            f"it with `tar -xf {first.name}`. {len(compressed)} such file(s) in {folder}."
        )
    if not images and not packed:
        raise FileNotFoundError(
            f"{folder}: holds no image file ({', '.join(EXTENSIONS)}), nor do its subfolders; and no .tar file."
        )
    if not images:
        return _packed(folder, packed)
    chosen = {*images}
    others = Counter(ending_of(path.name) for path in files if path not in chosen)
    said = f"{folder.name}: no images by their names, left out: {_listed(others)}"
    return ImageFiles(folder, images, (said,) if others else ())


def _listed(others: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))


def _packed(folder: Path, paths: list[Path]) -> PackedImages:
    shards, notes = open_shards(paths, EXTENSIONS)
    others = _listed(shards.index.others)
    if not len(shards):
        raise FileNotFoundError(
            f"{folder}: its {len(paths)} .tar file(s) hold no image ({', '.join(EXTENSIONS)}); found in them: "
            f"{others or 'nothing'}."
        )
    said = [f"{folder.name}: {len(shards)} images in {len(paths)} tar shard(s), by shard and place in it"]
    if others:
        said.append(f"{folder.name}: no images, left out of the shards: {others}")
    used = set(np.unique(shards.index.shard_N).tolist())
    if empty := [path.name for number, path in enumerate(paths) if number not in used]:
        said.append(f"{folder.name}: {len(empty)} shard(s) without an image ({', '.join(empty[:5])})")
    return PackedImages(folder, shards, (*said, *(f"{folder.name}: {note}" for note in notes)))


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """Return `most` of the items, evenly spaced from the first, or all where there are no more."""
    count = min(most, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def find_images(folder: Path) -> list[Path]:
    """Return every image file below `folder`, sorted; linked folders are followed, each once.

    Raises FileNotFoundError where there is none.
    """
    found = [path for path in _files_below(folder) if path.name.lower().endswith(EXTENSIONS)]
    if not found:
        raise FileNotFoundError(f"{folder}: holds no image file ({', '.join(EXTENSIONS)}), nor do its subfolders.")
    return found


def _files_below(folder: Path) -> list[Path]:
    """Return every file below `folder`, sorted; linked folders are followed, each once."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; looked for images in it.")
    found: list[Path] = []
    visited: set[str] = set()
    for here, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:  # a link that leads back
            subfolders.clear()
            continue
        visited.add(real)
        found += [Path(here, name) for name in names]
    return sorted(found)


def _decoded(file: str | Path | BinaryIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _as_rgb(upright)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(name, str(error) or type(error).__name__) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow's own conversion clips at 255 and makes 16-bit photographs white
        values = np.asarray(image).astype(np.float64)
        # modes I and F do not say how deep the file was
        values = np.nan_to_num(values)
        highest = values.max(initial=0.0)
        top = 65535.0 if image.mode.startswith("I;16") or highest > 255 else 255.0
        if image.mode == "F" and highest <= 1:
            top = 1.0
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
