"""Images per second of one core: the official MAE loader's transform against what a loader process does here.

    python perf/image_loader.py FOLDER [--megapixels N]

The official one is main_pretrain.py's: Pillow decodes, torchvision's v1 RandomResizedCrop (0.2 to 1, bicubic) and flip,
ToTensor, Normalize. Ours read orientation, greyscale, CMYK and 16-bit photographs too, resize with Pillow (as the
recipes do) or with torch (`--resize tensor`, JPEGs decoded by torchvision), and leave bytes, which the model
normalises; `reduced` and `crop` decode photographs at a fraction of their sides where every crop, or the one that was
drawn, stays large enough (`--decode reduced`, `--decode crop`). All see the same crops. With `--megapixels` the
photographs are first enlarged to so many, as a camera's are, and written as JPEGs of quality 92 to a temporary folder;
without, most of a folder of ImageNet's have 0.2. Prints images/s (median of the rounds, which alternate), ratios, the
share of decoding, which no transform can save, and how far the pixels are from the official ones in 8-bit levels.
EXIF-rotated photographs are left out (their names are printed): the official loader does not turn them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import tyro
from PIL import ExifTags, Image
from torch import Tensor
from torchvision import transforms

from backbones.normalise import View
from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import train_transform
from engine.images.jpeg import Undecoded, picture_of
from engine.images.reading import evenly_spaced, file_at, find_images, read_rgb
from engine.training.seeding import seeded


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of photographs."""
    image_size: int = 224
    """Side of the square in pixels."""
    rounds: int = 5
    """Rounds of each loader."""
    megapixels: float | None = None
    """Enlarge the photographs to so many 10^6 pixels first; None takes them as they are."""
    most: int = 200
    """Photographs that are used, evenly spaced."""


def official(size: int) -> Callable[[Path], Tensor]:
    """Return the official loader of one file."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=IMAGENET.mean, std=IMAGENET.std),
        ]
    )
    return lambda path: transform(_decoded(path))


def ours(size: int, **choice: Any) -> View:
    """Return this project's view of an image."""
    return train_transform((size, size), Augmentation(crop_scale=(0.2, 1.0), **choice), IMAGENET)


def loader(view: View) -> Callable[[Path], Tensor]:
    """Return what a loader process does with one file."""
    if view.takes_files:
        return lambda path: view.pixels(Undecoded(file_at(path)))
    if view.takes_tensors:
        return lambda path: view.pixels(picture_of(file_at(path), least_area=view.least_area))
    return lambda path: view.pixels(read_rgb(path, least_area=view.least_area))


def enlarged(files: list[Path], folder: Path, megapixels: float) -> list[Path]:
    """Return copies of the photographs with so many megapixels."""
    made = []
    for number, path in enumerate(files):
        image = _decoded(path)
        factor = (1e6 * megapixels / (image.width * image.height)) ** 0.5
        larger = image.resize((round(factor * image.width), round(factor * image.height)), Image.Resampling.BICUBIC)
        made.append(folder / f"{number}.jpg")
        larger.save(made[-1], quality=92)
    return made


def rate(load: Callable[[Path], object], files: list[Path]) -> float:
    """Return images per second."""
    began = time.perf_counter()
    for number, path in enumerate(files):
        with seeded(number):
            load(path)
    return len(files) / (time.perf_counter() - began)


def levels(load: Callable[[Path], Tensor], files: list[Path]) -> Tensor:
    """Return the pixels of all files in 8-bit levels."""
    std = torch.tensor(IMAGENET.std).view(3, 1, 1)
    mean = torch.tensor(IMAGENET.mean).view(3, 1, 1)
    made = []
    for number, path in enumerate(files):
        with seeded(number):
            made.append((load(path) * std + mean) * 255)
    return torch.stack(made)


def main() -> None:
    """Print the figures."""
    args = tyro.cli(Args, description=__doc__)
    torch.set_num_threads(1)
    found = evenly_spaced(find_images(args.images), args.most)
    files = [path for path in found if not _turned(path)]
    for path in sorted(set(found) - set(files)):
        print(f"{path}: left out, it is EXIF-rotated")
    with TemporaryDirectory() as folder:
        measure(files if args.megapixels is None else enlarged(files, Path(folder), args.megapixels), args)


def measure(files: list[Path], args: Args) -> None:
    """Print the figures of these files."""
    views = {
        "pillow": ours(args.image_size),
        "tensor": ours(args.image_size, resize="tensor"),
        "reduced": ours(args.image_size, resize="tensor", decode="reduced"),
        "crop": ours(args.image_size, resize="tensor", decode="crop"),
    }
    reduced = views["reduced"].least_area
    assert reduced is not None
    fewer = sum(_area(path) >= 4 * reduced for path in files)
    middle_area = median(_area(path) for path in files) / 1e6
    print(f"{len(files)} photographs, {middle_area:.2f} megapixels in the middle")
    print(f"{fewer} of them are large enough for `reduced` to decode half their sides or less")
    loads = {"official": official(args.image_size), **{name: loader(view) for name, view in views.items()}}
    timed: dict[str, Callable[[Path], object]] = {**loads, "decode": _decoded}
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(args.rounds):
        for name, load in timed.items():
            rates[name].append(rate(load, files))
    middle = {name: median(values) for name, values in rates.items()}
    reference = levels(loads["official"], files)
    for name, load in loads.items():
        normalised = load if name == "official" else _normalised(load, views[name])
        difference = (levels(normalised, files) - reference).abs()
        print(
            f"{name}: {middle[name]:.0f} images/s, {middle[name] / middle['official']:.2f}x; pixels differ by "
            f"{float(difference.mean()):.4f} levels on average, at most {float(difference.max()):.2f}, by over 1.5 "
            f"in {float((difference > 1.5).double().mean()):.5%}"
        )
    print(f"decoding alone takes {middle['official'] / middle['decode']:.0%} of the official loader's time")


def _normalised(load: Callable[[Path], Tensor], view: View) -> Callable[[Path], Tensor]:
    return lambda path: view.normalise(load(path))


def _area(path: Path) -> int:
    with Image.open(path) as image:
        return image.width * image.height


def _decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _turned(path: Path) -> bool:
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


if __name__ == "__main__":
    main()
