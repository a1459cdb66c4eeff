"""Images whose files travel to the device and are decoded, cropped and resized there (`--decode device`).

A loader process reads the file and its header and draws what its views show, with the draws of the other ways to
decode. What PyTorch's decoders would not read as Pillow does, or may not read at all, is decoded by Pillow there, and
its crops travel. Which and how many is counted.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.normalise import Place
from engine.images.file import UnreadableImageError, opened
from engine.images.jpeg import END, bytes_of, decoded, reason_against, tensor_of
from engine.images.reading import ImageFile, rgb_of

AT_ONCE = 2**28  # pixels that are decoded before their views are made: 0.8 GB of the device's memory
REFUSED = "refused by the device's decoder"


class Opened(NamedTuple):
    """An image of which the size is known, before its views are drawn."""

    file: ImageFile
    size: tuple[int, int]
    """Width and height, upright."""
    reason: str
    """Why Pillow has decoded it; empty where the device is to."""
    image: Image.Image | None
    """What Pillow has decoded."""


class Encoded(NamedTuple):
    """An image and its views."""

    name: str
    byte_N: Tensor
    """The file; where there is a reason, the pixels of the views' crops, one after another, (H, W, 3) each."""
    size: tuple[int, int]
    """Width and height of the image."""
    places: tuple[Place, ...]
    """What the views show."""
    reason: str
    """As of Opened."""


def open_encoded(file: ImageFile) -> Opened:
    """Return the image, decoded where it is not for the device. Raises UnreadableImageError."""
    with opened(io.BytesIO(file.content), file.name) as image:
        size, reason = image.size, reason_against(image)
    if not reason and not file.content.endswith(END):
        reason = "does not end as a JPEG"  # cut off, or followed by something
    if not reason:
        return Opened(file, size, "", None)
    whole = rgb_of(file)
    return Opened(file, whole.size, reason, whole)


def encoded(image: Opened, places: Sequence[Place]) -> Encoded:
    """Return the image with its views, ready to travel."""
    if image.image is None:
        content = bytes_of(image.file)
    else:
        boxes = [(p.left, p.top, p.left + p.width, p.top + p.height) for p in places]
        crops = [tensor_of(image.image.crop(box)).permute(1, 2, 0).flatten() for box in boxes]
        content = torch.cat(crops)
    return Encoded(image.file.name, content, image.size, tuple(places), image.reason)


class EncodedBatch:
    """The images of a batch, which become pixels where they are sent.

    Its bytes are not pinned: nvJPEG may still read pinned ones when they are given up.
    """

    def __init__(self, images: Sequence[Encoded]) -> None:
        """The views of all images have one size."""
        # one tensor: loader processes send each by a file descriptor of its own
        self.byte_N = torch.cat([image.byte_N for image in images])
        self.counts = [len(image.byte_N) for image in images]
        empty = torch.empty(0, dtype=torch.uint8)
        self.images = [image._replace(byte_N=empty) for image in images]
        self.refused = 0

    @property
    def by_cpu(self) -> Counter[str]:
        """How many images the CPU has decoded, by the reason; those that the device refused once they are sent."""
        found = Counter(image.reason for image in self.images if image.reason)
        return found + Counter({REFUSED: self.refused})

    def to(self, device: torch.device | str) -> Tensor:
        """Return the views of all images, one after another, on the device: uint8 (B, 3, H, W).

        Raises UnreadableImageError for a file that is whole by its header and its end and that no decoder reads.
        """
        device = torch.device(device)
        views: list[Tensor] = []
        for group in _groups(list(zip(self.images, self.byte_N.split(self.counts), strict=True))):
            images = iter(self._decoded([pair for pair in group if not pair[0].reason], device))
            for image, byte_N in group:
                crops = _crops_sent(image, byte_N, device) if image.reason else _crops(image, next(images))
                views += [_view(crop, place) for crop, place in zip(crops, image.places, strict=True)]
        return torch.stack(views)

    def _decoded(self, files: Sequence[tuple[Encoded, Tensor]], device: torch.device) -> list[Tensor]:
        """Return the images; where one is refused each is tried by itself, and Pillow reads those that are."""
        if not files:
            return []
        if device.type == "cuda":
            # torchvision decodes on a stream of its own, which waits for none: what the memory that it gets was used
            # for before must be over (decode_jpegs_cuda.cpp)
            torch.cuda.current_stream(device).synchronize()
        try:
            return decoded([byte_N for _, byte_N in files], device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return [self._one(image, byte_N, device) for image, byte_N in files]

    def _one(self, image: Encoded, byte_N: Tensor, device: torch.device) -> Tensor:
        try:
            return decoded([byte_N], device)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self.refused += 1
        try:
            return tensor_of(rgb_of(ImageFile(image.name, byte_N.numpy().tobytes()))).to(device)
        except UnreadableImageError as error:
            raise UnreadableImageError(
                image.name,
                f"{error.reason}; --decode device finds that out when the batch is on the device, too late to take "
                "another image: put a readable file in its place and go on with --resume, or train with another "
                "--decode, which leaves it out",
            ) from error


def batch_of(images: Sequence[Tensor | Encoded], join: Callable[[list[Tensor]], Tensor]) -> Tensor | EncodedBatch:
    """Return the images of a batch, joined where they are pixels already."""
    if isinstance(images[0], Encoded):
        return EncodedBatch(cast(Sequence[Encoded], images))
    return join(cast(list[Tensor], list(images)))


def _groups(files: list[tuple[Encoded, Tensor]]) -> Iterator[list[tuple[Encoded, Tensor]]]:
    """Yield the images in groups of at most AT_ONCE pixels, or of one."""
    group: list[tuple[Encoded, Tensor]] = []
    pixels = 0
    for image, byte_N in files:
        more = 0 if image.reason else image.size[0] * image.size[1]
        if group and pixels + more > AT_ONCE:
            yield group
            group, pixels = [], 0
        group.append((image, byte_N))
        pixels += more
    yield group


def _crops(image: Encoded, image_CHW: Tensor) -> list[Tensor]:
    """Return what the views show of a decoded image. Raises ValueError where it has another size than its header."""
    if tuple(image_CHW.shape[:0:-1]) != image.size:
        raise ValueError(f"{image.name}: decoded as {tuple(image_CHW.shape)}, where its header says {image.size}.")
    return [image_CHW[:, p.top : p.top + p.height, p.left : p.left + p.width] for p in image.places]


def _crops_sent(image: Encoded, byte_N: Tensor, device: torch.device) -> list[Tensor]:
    sent = byte_N.to(device).split([3 * p.height * p.width for p in image.places])
    places = zip(sent, image.places, strict=True)
    return [crop.unflatten(0, (p.height, p.width, 3)).permute(2, 0, 1) for crop, p in places]


def _view(crop_CHW: Tensor, place: Place) -> Tensor:
    """Return the crop resized, uint8; in float32, since a GPU has no kernel for bytes."""
    resized_CHW = F.interpolate(crop_CHW[None].float(), place.size, mode="bicubic", antialias=True)[0]
    level_CHW = resized_CHW.round_().clamp_(0, 255).to(torch.uint8)
    return level_CHW.flip(-1) if place.flipped else level_CHW
