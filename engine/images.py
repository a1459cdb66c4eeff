"""Reading any photograph as 8-bit RGB, or a clear error that names the file."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


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
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _as_rgb(upright)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(path), str(error) or type(error).__name__) from error


def find_images(folder: Path) -> list[Path]:
    """Return every image file below `folder`, sorted; linked folders are followed, each once.

    Raises FileNotFoundError where there is none.
    """
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
        found += [Path(here, name) for name in names if name.lower().endswith(EXTENSIONS)]
    if not found:
        raise FileNotFoundError(f"{folder}: holds no image file ({', '.join(EXTENSIONS)}), nor do its subfolders.")
    return sorted(found)


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
