"""Images per second of one core: the official MAE loader's transform against what a loader process does here.

    python perf/image_loader.py FOLDER

The official one is main_pretrain.py's: Pillow decodes, torchvision's v1 RandomResizedCrop (0.2 to 1, bicubic) and flip,
ToTensor, Normalize. Ours read by `read_rgb`, which adds orientation, greyscale, CMYK and 16-bit photographs, resize
with Pillow (as the recipes do) or with torch (`--resize tensor`), and leave bytes, which the model normalises;
`reduced` decodes photographs at a fraction of their sides where crops stay large enough (`--decode reduced`). All see
the same crops. Prints images/s (median of the rounds, which alternate), ratios, the share of decoding, which no
transform can save, and how far the pixels are from the official ones in 8-bit levels. EXIF-rotated photographs are left
out (their names are printed): the official loader does not turn them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
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
from engine.images.reading import find_images, read_rgb
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
    return lambda path: view.pixels(read_rgb(path, least_area=view.least_area))


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
    found = find_images(args.images)
    files = [path for path in found if not _turned(path)]
    for path in sorted(set(found) - set(files)):
        print(f"{path}: left out, it is EXIF-rotated")
    views = {
        "pillow": ours(args.image_size),
        "tensor": ours(args.image_size, resize="tensor"),
        "reduced": ours(args.image_size, resize="tensor", decode="reduced"),
    }
    reduced = views["reduced"].least_area
    assert reduced is not None
    fewer = sum(_area(path) >= 4 * reduced for path in files)
    print(f"{len(files)} photographs, {fewer} of them large enough to be decoded at half their sides or less")
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
