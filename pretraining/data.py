"""Unlabelled images for MAE: any files below `train/` and `val/`, as views, each with the noise of its mask."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.images import find_images, read_rgb
from pretraining.augment import View

Sample = tuple[Tensor, Tensor, str]  # image_RCHW, noise_RN, image id; R views


class MaskedImages:
    """Images with one number per patch; the mask hides all but the lowest."""

    def __init__(self, root: Path, view: View, *, noise: Callable[[], Tensor], repeats: int = 1) -> None:
        """`root` is searched with its subfolders; `noise` draws (N,) and an image gives `repeats` views.

        Raises FileNotFoundError where the folder holds no image.
        """
        self.root = root
        self.files = find_images(root)
        self.view, self.noise, self.repeats = view, noise, repeats

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image = read_rgb(self.files[index])
        views = [(self.view(image), self.noise()) for _ in range(self.repeats)]
        return torch.stack([v for v, _ in views]), torch.stack([n for _, n in views]), self.image_id(index)

    def view_of(self, index: int) -> Tensor:
        """One view of an image, (C, H, W)."""
        return self.view(read_rgb(self.files[index]))

    def image_id(self, index: int) -> str:
        """The path below the split's folder."""
        return str(self.files[index].relative_to(self.root))
