"""Examples and queries as they are read, and from shares of patches to masks and boxes.

Axis letters: H x W pixels of an image, h x w of a coarser map, P patches (row-major), N images, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.images.reading import read_rgb
from metrics.foreground import Box, Query
from segmentation.evaluation.resized import resized
from segmentation.in_context.episodes import Pictured
from segmentation.probe.patches import Grid, patch_counts

HALF = 0.5
Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """An image with its mask."""

    name: str
    image: Image.Image
    """RGB, at the size that the model takes."""
    mask_HW: np.ndarray
    """bool, of the image's own size."""


def read_resized(path: Path, size: Size) -> tuple[Image.Image, Size]:
    """Return an image resized (bicubic, its shape is not kept), and its own height and width.

    Raises UnreadableImageError.
    """
    image = read_rgb(path)
    own = image.height, image.width
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC), own


def read_mask(picture: Pictured, size: Size) -> np.ndarray:
    """Return the mask of an image of `size`, (H, W) bool. Raises ValueError for one of another size."""
    mask_HW = picture.mask()
    if mask_HW.shape != size:
        raise ValueError(
            f"{picture.path}: the image is {size[1]}x{size[0]} pixels (width x height), its mask {mask_HW.shape[1]}x"
            f"{mask_HW.shape[0]}. Give the mask of the image as it is shown, upright."
        )
    return mask_HW


def read_example(picture: Pictured, size: Size) -> Example:
    """Return an example. Raises UnreadableImageError, and ValueError for a mask without foreground or of another
    size."""
    image, own = read_resized(picture.path, size)
    mask_HW = read_mask(picture, own)
    if not mask_HW.any():
        raise ValueError(
            f"{picture.path}: its mask has no foreground pixel, so it shows nothing; leave the example out."
        )
    return Example(name=picture.name, image=image, mask_HW=mask_HW)


def stacked(images: Sequence[Image.Image]) -> Tensor:
    """Return images of one size as bytes, (N, C, H, W)."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()


def patch_shares(mask_HW: np.ndarray, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the share of foreground of every patch, (P, 1) float32, and which patches have a pixel, (P,) bool.

    An image of fewer rows or columns than patches has patches without a pixel.
    """
    count_P2 = patch_counts(mask_HW.astype(np.uint8), grid, 2)
    pixels_P = count_P2.sum(axis=1)
    share_P = count_P2[:, 1] / np.maximum(pixels_P, 1)
    return torch.from_numpy(share_P).float()[:, None], torch.from_numpy(pixels_P > 0)


def foreground(share_hw: Tensor, size: Size, threshold: float = HALF) -> np.ndarray:
    """Return which pixels of an image of `size` have a share above the threshold, enlarged bilinearly, (H, W) bool."""
    return np.asarray((resized(share_hw.float()[None, None], size)[0, 0] > threshold).cpu().numpy())


def largest_box(mask_HW: np.ndarray) -> Box | None:
    """Return the box around the largest connected part (pixels touch at corners too), None for an empty mask.

    As in Bar et al. (`evaluate_detection/box_ops.py` of their code). Of equal parts the first by rows is taken.
    """
    if not mask_HW.any():
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    left, top, width, height, _ = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())].tolist()
    return float(left), float(top), float(width), float(height)


def scored(category: int, truth_HW: np.ndarray, true_box: Box, predicted_HW: np.ndarray) -> Query:
    """Return what a results file keeps of an answer."""
    return Query(
        category=category,
        hit=int((truth_HW & predicted_HW).sum()),
        labelled=int(truth_HW.sum()),
        predicted=int(predicted_HW.sum()),
        box=largest_box(predicted_HW),
        true_box=true_box,
    )
