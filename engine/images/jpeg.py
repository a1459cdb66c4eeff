"""JPEGs by PyTorch's decoders instead of Pillow's: on a CPU the same pixels without a detour, and on a GPU.

Pillow keeps four bytes a pixel, which are copied into three. torchvision's decoder, libjpeg-turbo like Pillow's, writes
three. Files that the two would not read alike are left to Pillow. torchvision has announced that its decoders move to
torchcodec; `decode_jpeg` is used in this module alone.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from backbones.normalise import Decoded
from engine.images.file import TURNS, opened, turn_of
from engine.images.reading import ImageFile, rgb_of

SIDEWAYS = [TURNS[number] for number in (5, 6, 7, 8)]
END = b"\xff\xd9"  # the marker that ends a JPEG
REDUCED_FROM = 4  # times the least area, where half the sides are enough
FACTORS = (8, 4, 2)  # that the decoder divides sides by


def picture_of(file: ImageFile, *, least_area: float | None = None) -> Decoded:
    """Return the image of a file as `read_rgb` does, where torchvision's decoder reads it alike as uint8 (3, H, W).

    Raises UnreadableImageError.
    """
    with opened(io.BytesIO(file.content), file.name) as image:
        reduced = least_area is not None and image.width * image.height >= REDUCED_FROM * least_area
        plain = not reason_against(image)
    if plain and not reduced:
        try:
            return decoded([bytes_of(file)], torch.device("cpu"))[0]
        except RuntimeError:
            pass  # Pillow reads it, or says what is wrong with it
    return rgb_of(file, least_area=least_area)


class Undecoded:
    """An image file of which the size is known, and which is decoded when it is known what is seen of it."""

    def __init__(self, file: ImageFile) -> None:
        """Read the header. Raises UnreadableImageError."""
        self.file = file
        with opened(io.BytesIO(file.content), file.name) as image:
            on_its_side = turn_of(image) in SIDEWAYS and image.format != "TIFF"  # whose size is the upright one
            self.size = image.size[::-1] if on_its_side else image.size
        self._made: dict[int, Decoded] = {}

    def decoded(self, crop: tuple[int, int], size: tuple[int, int], *, tensors: bool) -> Decoded:
        """Return the image; a JPEG at 1/2, 1/4 or 1/8 of its sides where a crop stays as large as `size`.

        `crop` is height and width of the crop in pixels of the whole image, `size` of what it is resized to. It may be
        a tensor with `tensors`. Raises UnreadableImageError.
        """
        room = min(crop[0] / size[0], crop[1] / size[1])
        factor = next((k for k in FACTORS if room >= k), 1)
        if factor not in self._made:
            least = self.size[0] * self.size[1] / factor**2 if factor > 1 else None
            self._made[factor] = (picture_of if tensors else rgb_of)(self.file, least_area=least)
        return self._made[factor]


def reason_against(image: Image.Image) -> str:
    """Return why an opened image is left to Pillow; "" where PyTorch's decoders read it alike."""
    if image.format != "JPEG":
        return f"{image.format}, not JPEG"
    if image.mode != "RGB":
        return {"L": "greyscale"}.get(image.mode, image.mode)
    return "EXIF-rotated" if turn_of(image) is not None else ""


def decoded(files: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the images, uint8 (3, H, W), of files' bytes on the host, decoded on the device.

    Raises RuntimeError where one of them cannot be decoded there.
    """
    images: list[Tensor] = decode_jpeg(list(files), ImageReadMode.RGB, device=device)
    return images


def bytes_of(file: ImageFile) -> Tensor:
    """Return the bytes of a file, uint8."""
    return torch.frombuffer(bytearray(file.content), dtype=torch.uint8)


def tensor_of(image: Image.Image) -> Tensor:
    """Return the pixels of an RGB image, uint8 (3, H, W), channels last in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
