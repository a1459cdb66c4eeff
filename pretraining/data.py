"""Unlabelled images for MAE: any files below `train/` and `val/`, cropped and flipped, with the noise of their mask."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from engine.images import find_images, read_rgb

Sample = tuple[Tensor, Tensor, str]  # image_CHW, noise_N, image id


class MaskedImages:
    """Images with one uniform number per patch; the mask hides all but the lowest."""

    def __init__(self, root: Path, transform: Callable[[Image.Image], Tensor], *, patches: int) -> None:
        """`root` is searched with its subfolders. Raises FileNotFoundError where it holds no image."""
        self.root = root
        self.files = find_images(root)
        self.transform = transform
        self.patches = patches

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return self.transform_image(index), torch.rand(self.patches), self.image_id(index)

    def transform_image(self, index: int) -> Tensor:
        """The transformed image alone, (C, H, W)."""
        return self.transform(read_rgb(self.files[index]))

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return str(self.files[index].relative_to(self.root))
