"""Reading any photograph as 8-bit RGB, or a clear error that names the file; and the images of a folder, in one order.

Images of other than three channels are arrays (engine.images.arrays). A folder holds images as files or packed into tar
shards: `open_images` gives either as one ImageSource.
"""

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image

from engine.images.arrays import ENDINGS, RGB, array_size, as_picture, is_array, read_array
from engine.images.file import UnreadableImageError, opened, raw_mode, turn_of, upright_size
from engine.images.grey_levels import DIM, grey_to_8_bits
from engine.images.shards import ARCHIVES, COMPRESSED, Shards, ending_of, open_shards
from files.naming import SYSTEM, system_part

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")

PHOTOMETRIC = 262  # TIFF's tag PhotometricInterpretation
WHOLE = "whole"
SAME_SIDES = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)
MOST_DRAWN = 2000  # pixels of the longer side of an image in a picture
T = TypeVar("T")
Picture = Image.Image | np.ndarray
"""An RGB image, or one of other than three channels: float32 (H, W, C), from 0 to 1."""
_warned: list[str] = []  # the image that this process has warned of


def read_rgb(path: str | Path, *, least_area: float | None = None) -> Image.Image:
    """Return the whole image, upright (EXIF orientation applied), as 8-bit RGB.

    With `least_area` a JPEG is decoded at 1/2, 1/4 or 1/8 of its sides where it keeps as many pixels. That is
    much less work. Its `info` then has its width and height before that as WHOLE.

    Palette, CMYK and alpha are converted, colours of 16 bits lose their lower 8, and greyscale of more than 8 bits is
    scaled by the rule of `engine.images.grey_levels`. A 16-bit image that is nearly black by it is warned of once per
    process. Raises UnreadableImageError for a missing, empty, truncated or undecodable file, for one of more than
    `most_megapixels`, and for one that does not say which of its numbers is white.
    """
    return _decoded(path, str(path), least_area=least_area)


def read_picture(path: str | Path, channels: int = RGB, *, least_area: float | None = None) -> Picture:
    """Return an image of three channels as `read_rgb` does, of any other number as `read_array`; raises as they do."""
    if channels == RGB:
        return read_rgb(path, least_area=least_area)
    if not is_array(path):
        raise UnreadableImageError(str(path), no_array(channels))
    return read_array(path, str(path), channels)


def no_array(channels: int) -> str:
    """Return what is said of a file that is no array in a run of other than three channels."""
    return (
        f"no .npy array, from which images of {channels} channels are read; convert it, a TIFF of several bands for "
        "instance by numpy.save(FILE, tifffile.imread(TIFF))"
    )


def read_shown(path: str | Path, channels: int | None = None) -> Image.Image:
    """Return an image for people, an array as `as_picture` shows it. Raises UnreadableImageError."""
    return as_picture(read_array(path, str(path), channels)) if is_array(path) else read_rgb(path)


def size_of(path: Path, channels: int = RGB) -> tuple[int, int]:
    """Return width and height from the header, upright. Raises UnreadableImageError, and ValueError as `array_size`."""
    if channels == RGB:
        return upright_size(path)
    if not is_array(path):
        raise UnreadableImageError(str(path), no_array(channels))
    return array_size(path, channels)


def endings_of(channels: int) -> tuple[str, ...]:
    """Return the endings of the names of images of so many channels."""
    return EXTENSIONS if channels == RGB else ENDINGS


def other_kind(names: Iterable[str | Path], channels: int) -> str:
    """Return a hint, with a blank before it, where files are images of another number of channels, else nothing."""
    others = ENDINGS if channels == RGB else EXTENSIONS
    found = [str(name) for name in names if str(name).lower().endswith(others)]
    if not found:
        return ""
    if channels == RGB:
        return (
            f" {len(found)} .npy arrays are there: images of other than three channels are declared by --in-chans "
            "(docs/channels.md)."
        )
    first = Path(found[0]).name
    return f" {len(found)} other images are there ({first}, ...), which are RGB's: {first} is {no_array(channels)}."


def read_reduced(
    path: str | Path, most: int = MOST_DRAWN, *, channels: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the image as `read_shown`, its longer side reduced to at most `most` pixels; and its own width and height.

    For pictures: one of 100 megapixels takes as long to draw as a thousand others. Raises UnreadableImageError.
    """
    if is_array(path):
        image = read_shown(path, channels)
        size = image.size
        image.thumbnail((most, most))
        return image, size
    image = _decoded(path, str(path), most=most)
    size = upright_size(Path(path))
    image.thumbnail((most, most))  # changes none that is smaller
    return image, size


def none_readable(paths: Sequence[str | Path], split: str, channels: int = RGB) -> str | None:
    """Return what is to be said where none of the images of a split can be decoded; None at the first that can be.

    Of no images, None. Raises ValueError for an array of another number of channels.
    """
    first: UnreadableImageError | None = None
    for path in paths:
        try:
            read_picture(path, channels)
        except UnreadableImageError as error:
            first = first or error
        else:
            return None
    return None if first is None else f"{split}: none of its {len(paths)} images can be read; the first: {first}"


class ImageFile(NamedTuple):
    """An image file that is not decoded yet."""

    name: str
    """What errors call it."""
    content: bytes
    """Its bytes."""


def file_at(path: str | Path) -> ImageFile:
    """Return the file. Raises UnreadableImageError."""
    try:
        return ImageFile(str(path), Path(path).read_bytes())
    except OSError as error:
        raise UnreadableImageError(str(path), str(error)) from error


def rgb_of(file: ImageFile, *, least_area: float | None = None) -> Image.Image:
    """Return the image of a file as `read_rgb` does. Raises UnreadableImageError."""
    return _decoded(io.BytesIO(file.content), file.name, least_area=least_area)


class ImageSource(Protocol):
    """Images without labels, in one order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of them."""

    def __len__(self) -> int:
        """How many there are."""

    def image_id(self, index: int) -> str:
        """The name of an image below the folder."""

    def read(self, index: int, *, least_area: float | None = None) -> Picture:
        """The image as `read_picture` gives it. Raises UnreadableImageError."""

    def file(self, index: int) -> ImageFile:
        """Its file. Raises UnreadableImageError."""


class ImageFiles:
    """Image files below a folder, in the order given."""

    def __init__(self, root: Path, files: list[Path], notes: tuple[str, ...] = (), *, channels: int = RGB) -> None:
        self.root, self.files, self.notes, self.channels = root, files, notes, channels

    def __len__(self) -> int:
        return len(self.files)

    def image_id(self, index: int) -> str:
        """The path below the folder."""
        return str(self.files[index].relative_to(self.root))

    def read(self, index: int, *, least_area: float | None = None) -> Picture:
        """The image. Raises UnreadableImageError."""
        return read_picture(self.files[index], self.channels, least_area=least_area)

    def file(self, index: int) -> ImageFile:
        """Its file. Raises UnreadableImageError."""
        return file_at(self.files[index])


class PackedImages:
    """Image files in tar shards below a folder."""

    def __init__(self, root: Path, shards: Shards, notes: tuple[str, ...], *, channels: int = RGB) -> None:
        self.root, self.shards, self.notes, self.channels = root, shards, notes, channels

    def __len__(self) -> int:
        return len(self.shards)

    def image_id(self, index: int) -> str:
        """The path of the shard below the folder, and the name in it."""
        shard, name = self.shards.place(index)
        return f"{shard.relative_to(self.root)}/{name}"

    def read(self, index: int, *, least_area: float | None = None) -> Picture:
        """The image. Raises UnreadableImageError."""
        file = self.file(index)
        if self.channels != RGB:
            return read_array(io.BytesIO(file.content), file.name, self.channels)
        return rgb_of(file, least_area=least_area)

    def file(self, index: int) -> ImageFile:
        """Its file. Raises UnreadableImageError."""
        shard, name = self.shards.place(index)
        try:
            return ImageFile(f"{shard}/{name}", self.shards.read(index))
        except OSError as error:
            raise UnreadableImageError(f"{shard}/{name}", str(error)) from error


def open_images(folder: Path, channels: int = RGB) -> ImageSource:
    """Return every image below `folder`: files sorted by path, or what tar shards hold, by shard and place in it.

    Raises FileNotFoundError where there is none, and ValueError where there are both, or a shard cannot be read at any
    place because it is compressed, truncated or damaged.
    """
    files, hidden = _files_below(folder)
    endings = endings_of(channels)
    images = [path for path in files if path.name.lower().endswith(endings)]
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
            f"{folder}: holds no image file ({', '.join(endings)}), nor do its subfolders; and no .tar file."
            f"{other_kind(files, channels)}"
        )
    if not images:
        return _packed(folder, packed, channels)
    chosen = {*images}
    others = Counter(ending_of(path.name) for path in files if path not in chosen)
    said = [f"{folder.name}: no images by their names, left out: {_listed(others)}"] if others else []
    return ImageFiles(folder, images, (*said, *_left_out(folder, hidden, endings)), channels=channels)


def _listed(others: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))


def _packed(folder: Path, paths: list[Path], channels: int) -> PackedImages:
    endings = endings_of(channels)
    shards, notes = open_shards(paths, endings)
    others = _listed(shards.index.others)
    if not len(shards):
        raise FileNotFoundError(
            f"{folder}: its {len(paths)} .tar file(s) hold no image ({', '.join(endings)}); found in them: "
            f"{others or 'nothing'}."
        )
    said = [f"{folder.name}: {len(shards)} images in {len(paths)} tar shard(s), by shard and place in it"]
    if others:
        said.append(f"{folder.name}: no images, left out of the shards: {others}")
    used = set(np.unique(shards.index.shard_N).tolist())
    if empty := [path.name for number, path in enumerate(paths) if number not in used]:
        said.append(f"{folder.name}: {len(empty)} shard(s) without an image ({', '.join(empty[:5])})")
    return PackedImages(folder, shards, (*said, *(f"{folder.name}: {note}" for note in notes)), channels=channels)


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """Return `most` of the items, evenly spaced from the first, or all where there are no more."""
    count = min(most, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def find_images(folder: Path, channels: int = RGB) -> list[Path]:
    """Return every image file below `folder`, sorted; linked folders are followed, each once.

    Warns of what is hidden or the system's, and left out. Raises FileNotFoundError where there is no image.
    """
    files, hidden = _files_below(folder)
    endings = endings_of(channels)
    notes = _left_out(folder, hidden, endings)
    found = [path for path in files if path.name.lower().endswith(endings)]
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds no image file ({', '.join(endings)}), nor do its subfolders."
            f"{other_kind(files, channels)}" + "".join(f" Left out: {note}." for note in notes)
        )
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return found


def _left_out(folder: Path, hidden: Sequence[Path], endings: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note on the images and archives among files that are hidden or the system's."""
    images = [path for path in hidden if path.name.lower().endswith((*endings, *ARCHIVES, *COMPRESSED))]
    if not images:
        return ()
    return (f"{folder.name}: {len(images)} images {SYSTEM}, left out ({images[0].relative_to(folder)}, ...)",)


def _files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return every file below `folder` that is a person's, and those that are hidden or the system's, both sorted.

    Linked folders are followed, each once.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; looked for images in it.")
    found: list[Path] = []
    hidden: list[Path] = []
    visited: set[str] = set()
    for here, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:  # a link that leads back
            subfolders.clear()
            continue
        visited.add(real)
        below = os.path.relpath(here, folder)
        for name in names:
            (found if system_part(os.path.join(below, name)) is None else hidden).append(Path(here, name))
    return sorted(found), sorted(hidden)


def _decoded(
    file: str | Path | BinaryIO, name: str, *, most: int | None = None, least_area: float | None = None
) -> Image.Image:
    """Return the image; a JPEG is decoded at 1/2, 1/4 or 1/8 where its sides stay `most` long, or its area so large."""
    with opened(file, name) as image:
        whole = image.size
        if most is not None and max(image.size) > most:
            image.draft(None, (most, most))
        if least_area is not None:
            factor = next((k for k in (8, 4, 2) if image.width * image.height >= least_area * k**2), 1)
            image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
        stored = raw_mode(image)
        image.load()
        rgb, turn = _as_rgb(image, stored, name), turn_of(image)
    if turn is not None:
        rgb, whole = rgb.transpose(turn), whole if turn in SAME_SIDES else whole[::-1]
        for key in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):  # they would have it rotated again
            rgb.info.pop(key, None)
    if rgb.size != whole:
        rgb.info[WHOLE] = whole
    return rgb


def _as_rgb(image: Image.Image, stored: str, name: str) -> Image.Image:
    """Return 8-bit RGB; `stored` is the image's `raw_mode`."""
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        rgb = image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
        if stored.startswith(("RGB", "LA")) and ";16" in stored:
            _warn_of_black(name, max(high for _, high in rgb.getextrema()) / 255)  # type: ignore[misc]
        return rgb
    # 0 is white: TIFF's WhiteIsZero, which Pillow follows up to 8 bits alone
    inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0
    grey = grey_to_8_bits(np.asarray(image), _whites(image, stored), inverted=inverted)
    if grey.white > 4095 and not inverted:
        _warn_of_black(name, grey.highest)
    return Image.fromarray(grey.level_HW).convert("RGB")


def _whites(image: Image.Image, stored: str) -> tuple[int, ...]:
    """Return which numbers may be white by the kind of file: one where the kind says it."""
    if stored == "I;12":
        return (4095,)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return (65535,)  # Pillow scales the highest value that a PGM declares to that
    if stored in ("I;16S", "I;16BS"):
        return (255, 32767)
    return (255, 65535) if image.mode == "I" else (1, 255, 65535)


def _warn_of_black(name: str, highest: float) -> None:
    """Warn of an image of 16 bits that is nearly black: 12 bits in 16 look so, and so does a photograph at night."""
    if 0 < highest <= DIM and not _warned:
        _warned.append(name)
        warnings.warn(
            f"{name}: 16 bits, of which the brightest pixel has {highest:.1%} of white: it is read nearly black. If it "
            "holds 10 or 12 bits, multiply its numbers so that white is 65535. Others like it are not named.",
            stacklevel=2,
        )
