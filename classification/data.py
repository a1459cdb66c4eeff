"""ImageFolder data (`train/<class>/*`, `val/<class>/*`) and the transforms of training and evaluation."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from backbones.normalise import Decoded, Normalise, Place, View
from backbones.weights.normalisation import Normalisation
from classification import array_views
from classification.array_views import MOST_SIDES
from classification.config import Augmentation
from engine.augment import Augment, ClassSample
from engine.images.arrays import ENDINGS, RGB
from engine.images.encoded import Encoded, encoded, open_encoded
from engine.images.jpeg import Undecoded, picture_of, tensor_of
from engine.images.reading import WHOLE, file_at, other_kind, read_picture
from files.naming import SYSTEM, nearest, system_part
from files.shared import shared_paths

Sample = tuple[Tensor | Encoded, int, str]  # pixels_CHW, label, image id
MARK = torch.tensor([0, 1]).view(1, 1, 2)  # an image that shows whether it was flipped


class LabelledImages:
    """One split of an ImageFolder; samples are (pixels_CHW of the view, label, image id).

    Where the view leaves decoding to the device they have the file in place of the pixels.
    """

    def __init__(self, folder: ImageFolder, view: View, augment: Augment | None = None) -> None:
        """`augment` is of training alone."""
        self.folder = folder
        self.view = view
        self.augment = augment
        self.root = Path(folder.root)

    def __len__(self) -> int:
        return len(self.folder.samples)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.folder.samples[index]
        image_id = self.image_id(index)
        if self.view.place is not None:
            opened = open_encoded(file_at(path))
            return encoded(opened, [self.view.place(*opened.size)]), label, image_id
        image = self._picture(path)
        if self.augment is None:
            return self.view.pixels(image), label, image_id
        augment, classes = self.augment, len(self.folder.classes)

        def change(image_HW3: np.ndarray) -> np.ndarray:
            nonlocal label
            made = augment(ClassSample(image_HW3, label), image_id, classes=classes)
            label = int(made.label)
            return made.image

        return self.view.changed(image, change), label, image_id

    @property
    def decoded_on_device(self) -> bool:
        """Whether samples have files, which the device decodes."""
        return self.view.place is not None

    def _picture(self, path: str) -> Any:
        """Return the image, or its file, as the view takes it."""
        least = self.view.least_area
        if self.view.takes_files:
            return Undecoded(file_at(path))
        if self.view.takes_tensors:
            return picture_of(file_at(path), least_area=least)
        return read_picture(path, self.view.channels, least_area=least)

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return str(Path(self.folder.samples[index][0]).relative_to(self.root))

    def path(self, index: int) -> Path:
        """The file of an image."""
        return Path(self.folder.samples[index][0])


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Return pixels (B, C, H, W) and labels (B) of samples that have pixels."""
    pixels, labels, _ = zip(*samples, strict=True)
    return torch.stack(pixels), torch.tensor(labels)


def open_split(data: Path, split: str, channels: int = RGB) -> tuple[ImageFolder, list[str]]:
    """Return `data/split` as an ImageFolder of images of so many channels and notes on what it leaves out.

    Raises FileNotFoundError that says what was looked for and what was found, and ValueError for a single class.
    """
    root = data / split
    if not root.is_dir():
        images = any(entry.suffix.lower() in IMG_EXTENSIONS for entry in data.iterdir()) if data.is_dir() else False
        without = " Images without classes are what tools/pretrain.py takes." if images else ""
        raise FileNotFoundError(
            f"{data}: looked for {split}/<class>/<image>; found {_listing(data)}. "
            f"--data names the folder that holds train/ and val/.{without}"
        )
    return open_classes(root, channels)


def open_classes(root: Path, channels: int = RGB) -> tuple[ImageFolder, list[str]]:
    """Return the classes in `root/<class>/<image>` and notes; what is hidden or the system's is no class and no image.

    Raises FileNotFoundError where there is no class or no image, and ValueError for a single class: with one to choose
    from every prediction is right.
    """
    split = root.name
    entries = sorted(root.iterdir())
    folders = [entry for entry in entries if entry.is_dir()]
    hidden = [folder.name for folder in folders if system_part(f"{folder.name}/")]
    if len(hidden) == len(folders):
        raise FileNotFoundError(f"{root}: looked for one folder per class; found {_listing(root)}.")
    endings = IMG_EXTENSIONS if channels == RGB else ENDINGS
    folder = _Classes(str(root), endings)
    if not folder.samples:
        others = other_kind((name for _, _, names in _walk(root) for name in names), channels)
        raise FileNotFoundError(
            f"{root}: {len(folder.classes)} class folders, but no image file in any of them.{others}"
        )
    counts = Counter(label for _, label in folder.samples)
    if len(folder.classes) < 2:
        raise ValueError(_one_class(folder, folder.classes[0]))
    notes = []
    if empty := [name for name, label in folder.class_to_idx.items() if not counts[label]]:
        notes.append(f"{split}: {len(empty)} classes without an image ({some(empty)})")
    if loose := sum(entry.is_file() for entry in entries):
        notes.append(f"{split}: {loose} files that lie in no class folder left out")
    below = [os.path.relpath(os.path.join(here, name), root) for here, _, names in _walk(root) for name in names]
    system = [name for name in below if system_part(name)]
    if other := len(below) - loose - len(folder.samples) - sum(name.count(os.sep) > 0 for name in system):
        notes.append(f"{split}: {other} files of no image format left out")
    if images := [name for name in system if name.lower().endswith(endings)]:
        notes.append(f"{split}: {len(images)} images {SYSTEM} left out ({some(sorted(images))})")
    if hidden:
        notes.append(f"{split}: {len(hidden)} folders {SYSTEM} are no classes ({some(hidden)})")
    deep = [path for path, _ in folder.samples if path.count(os.sep, len(str(root)) + 1) > 1]
    if deep:
        subfolders = sorted({os.path.relpath(os.path.dirname(path), root) for path in deep})
        notes.append(
            f"{split}: {len(deep)} images lie in sub-folders of their class ({some(subfolders)}), which are no classes"
        )
    return folder, notes


def same_classes(train: ImageFolder, val: ImageFolder) -> str:
    """Return a note on the classes.

    Raises ValueError where val has others, since their labels would not mean the same, and where all images to train
    on are of one class.
    """
    check_classes(train)
    if train.classes != val.classes:
        extra = sorted(set(val.classes) - set(train.classes))
        missing = sorted(set(train.classes) - set(val.classes))
        raise ValueError(
            f"{val.root}: its class folders differ from those of {train.root}: only in val {extra[:5]}, "
            f"only in train {missing[:5]}{nearest(extra, missing)}; make them the same (an empty folder counts)."
        )
    return f"{len(train.classes)} classes: {some(train.classes)}"


def shared_note(train: ImageFolder, val: ImageFolder) -> list[str]:
    """Return a note on the images that are in train and in val, by where they lie, if there are any."""
    shared = shared_paths((path for path, _ in train.samples), (path for path, _ in val.samples))
    return [f"{len(shared)} validation images are training images too ({some(shared, 3)})"] if shared else []


def check_classes(train: ImageFolder) -> None:
    """Raise ValueError where all images to train on are of one class: any classifier learns to say that."""
    used = {label for _, label in train.samples}
    if len(used) == 1:
        raise ValueError(_one_class(train, train.classes[used.pop()]))


class _Classes(ImageFolder):
    """An ImageFolder without the folders and files that are hidden or the system's."""

    def __init__(self, root: str, endings: tuple[str, ...]) -> None:
        begin = len(root.rstrip(os.sep)) + 1
        super().__init__(
            root,
            allow_empty=True,
            is_valid_file=lambda path: path.lower().endswith(endings) and system_part(path[begin:]) is None,
        )

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the names of the class folders, sorted, and their numbers."""
        names = sorted(e.name for e in os.scandir(directory) if e.is_dir() and system_part(f"{e.name}/") is None)
        return names, {name: number for number, name in enumerate(names)}


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    return os.walk(root, followlinks=True)  # as ImageFolder walks


def _one_class(folder: ImageFolder, only: str) -> str:
    """Return the message on a folder whose images are all of one class."""
    root, classes = Path(folder.root), folder.classes
    inside = sorted(e.name for e in (root / only).iterdir() if e.is_dir() and system_part(f"{e.name}/") is None)
    others = f" (none of the {len(classes) - 1} other class folders)" if len(classes) > 1 else ""
    deeper = f" {only} has the sub-folders {some(inside)}: if those are the classes, move them into {root}."
    return (
        f"{root}: all its images are of one class, {only!r}{others}; two are needed to tell apart. Looked for "
        f"{root.name}/<class>/<image>; found {_listing(root)}.{deeper if inside else ''}"
    )


def train_transform(size: tuple[int, int], augment: Augmentation, normalisation: Normalisation) -> View:
    """Return RandomResizedCrop (bicubic), flip and RandAugment as configured, of images of as many channels as
    `normalisation`.

    Erasing fills with noise of normalised pixels, so with it the view's pixels are normalised floats.
    """
    erasing = RandomErasing(augment.erase, mode="pixel", device="cpu") if augment.erase else None
    if len(normalisation.mean) != RGB:
        return array_views.random_crop(size, normalisation, scale=augment.crop_scale, flip=augment.flip, erase=erasing)
    as_tensors = augment.resize == "tensor"
    crop = (_TensorCrop if as_tensors else _Crop)(
        size, scale=augment.crop_scale, interpolation=v2.InterpolationMode.BICUBIC
    )
    flip = v2.RandomHorizontalFlip() if augment.flip else None
    steps: list[Any] = [crop] if flip is None else [crop, flip]
    if augment.randaugment:
        if as_tensors:
            steps.append(v2.ToPILImage())
        fill = tuple(round(255 * m) for m in normalisation.mean)
        hparams = {
            "translate_const": int(min(size) * 0.45),
            "img_mean": fill,
            "interpolation": Image.Resampling.BICUBIC,
        }
        steps.append(rand_augment_transform(augment.randaugment, hparams))
    if augment.randaugment or not as_tensors:
        steps.append(v2.PILToTensor())
    normalise = Normalise(normalisation)
    erase = None if erasing is None else v2.Compose([normalise, erasing])
    least = least_area(size, augment.crop_scale[0]) if augment.decode == "reduced" else None
    place = _Placing(crop, flip) if augment.decode == "device" else None
    return View(
        v2.Compose(steps),
        normalise,
        finish=erase,
        least_area=least,
        takes_tensors=as_tensors,
        takes_files=augment.decode == "crop",
        place=place,
    )


def least_area(size: tuple[int, int], scale: float) -> float:
    """Return the pixels of an image of which no crop is smaller than `size` (height, width).

    `scale` is the least share of the area. A crop of share s and aspect a has sides of sqrt(s * area * a) and
    sqrt(s * area / a), with a from 3/4 to 4/3.
    """
    return max(size) ** 2 / (0.75 * scale)


def eval_transform(size: tuple[int, int], crop_pct: float, normalisation: Normalisation) -> View:
    """Return resize (bicubic, shorter side to size / crop_pct) and centre crop, of images of as many channels as
    `normalisation`."""
    if len(normalisation.mean) != RGB:
        return array_views.centre_crop(size, normalisation, crop_pct=crop_pct)
    resized = [math.floor(side / crop_pct) for side in size]  # down, as MAE's code and timm do
    shorter = resized[0] if size[0] == size[1] else resized
    steps = [
        *([_NearCentre()] if isinstance(shorter, int) else []),
        v2.Resize(shorter, interpolation=v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(size),
        v2.PILToTensor(),
    ]
    return View(v2.Compose(steps), Normalise(normalisation))


def _box(image: Image.Image, params: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom in pixels of the image as it was decoded."""
    width, height = image.info.get(WHOLE, image.size)
    across, down = image.width / width, image.height / height
    left, top = params["left"] * across, params["top"] * down
    return left, top, left + params["width"] * across, top + params["height"] * down


class _NearCentre:
    """Cuts from an image that is all length what is far from the square in its centre, which is all that is kept.

    Resized whole, an image of 1 x 5,000 pixels would take a gigabyte.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        most = MOST_SIDES * min(image.size)
        # an even number of pixels goes, so that the centre stays where it is
        left, top = (max(0, (side - most) // 2) for side in image.size)
        return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


class _Crop(v2.RandomResizedCrop):
    """Random crops that are placed in the whole image, also where it was decoded at a fraction of its sides.

    A file that is not decoded yet is decoded once the crop is drawn, at a fraction of its sides where the crop allows.
    """

    takes_tensors = False

    def forward(self, *inputs: Any) -> Any:
        """Return the crop of an image, resized."""
        (image,) = inputs
        if not isinstance(image, Undecoded):
            return super().forward(image)
        params = self.make_params([torch.empty(3, image.size[1], image.size[0], device="meta")])
        crop, size = (params["height"], params["width"]), tuple(self.size)
        return self.transform(image.decoded(crop, size, tensors=self.takes_tensors), params)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return top, left, height and width in pixels of the whole image; as many numbers are drawn as of one."""
        (image,) = flat_inputs
        if isinstance(image, Tensor) or WHOLE not in image.info:
            return super().make_params(flat_inputs)
        width, height = image.info[WHOLE]
        return super().make_params([torch.empty(3, height, width, device="meta")])

    def transform(self, image: Any, params: dict[str, Any]) -> Any:
        """Return the crop of an image that `params` place, resized."""
        if WHOLE not in image.info:
            return super().transform(image, params)
        return image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC, box=_box(image, params))


class _TensorCrop(_Crop):
    """The same random crops, resized by torch's kernel for bytes; gives uint8 (C, H, W)."""

    takes_tensors = True

    def transform(self, image: Decoded, params: dict[str, Any]) -> Tensor:
        """Return the crop that `params` place, resized."""
        if isinstance(image, Tensor):
            left, top = params["left"], params["top"]
            crop_CHW = image[:, top : top + params["height"], left : left + params["width"]]
        else:
            left, top, right, bottom = map(round, _box(image, params))
            crop_CHW = tensor_of(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
        # channels last in memory: the fast kernel
        return F.interpolate(crop_CHW[None], self.size, mode="bicubic", antialias=True)[0]


class _Placing:
    """Draws what a view shows without an image: the numbers that crop and flip would draw of one."""

    def __init__(self, crop: _Crop, flip: v2.RandomHorizontalFlip | None) -> None:
        self.crop, self.flip = crop, flip

    def __call__(self, width: int, height: int) -> Place:
        p = self.crop.make_params([torch.empty(3, height, width, device="meta")])
        flipped = self.flip is not None and bool(self.flip(MARK)[0, 0, 0])
        return Place(p["left"], p["top"], p["width"], p["height"], flipped, tuple(self.crop.size))


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names and how many more there are."""
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _listing(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) + more) if names else "an empty folder"
