"""Random crops of an image together with its label map: what an augmented memory is drawn from.

Hummingbird draws its memory from augmented images (Balazevic et al. 2023, arXiv 2306.01667); open-hummingbird-eval
takes RandomResizedCrop of half of the area and more, mirrors none, and changes colours a little, which is left out
here. A crop's width to height is 3/4 to 4/3 of the image's own, since crop and image are resized to one shape.

Axis letters: H x W pixels.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from segmentation.host import BaseTransform
from segmentation.probe.config import DenseProbeConfig

ASPECTS = (3 / 4, 4 / 3)
TRIES = 10  # as torchvision's RandomResizedCrop


class Box(NamedTuple):
    """A crop in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_box(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """Return a crop of an image of `size` (height, width) that takes a share of its area from `scale`.

    A shape that does not fit in is drawn again; after ten the crop has the shape of the image.
    """
    height, width = size
    low, high = (math.log(aspect) for aspect in ASPECTS)
    for _ in range(TRIES):
        share, aspect = rng.uniform(*scale), math.exp(rng.uniform(low, high))
        if share * max(aspect, 1 / aspect) <= 1:
            break
    else:
        aspect = 1.0
    h = max(1, round(height * math.sqrt(share / aspect)))
    w = max(1, round(width * math.sqrt(share * aspect)))
    return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)


class CropBoth(BaseTransform):
    """Cuts image and label map alike. What is drawn for sample n depends on the seed and n alone."""

    def __init__(self, scale: tuple[float, float], *, flip: bool, seed: int) -> None:
        super().__init__()
        self.scale, self.flip, self.seed = scale, flip, seed

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `results` with the crop of `img` (H, W, 3) and of `gt_seg_map` (H, W), mirrored half of the time."""
        rng = np.random.default_rng([self.seed, 2, results["sample_idx"]])  # [seed, 0] and [seed, 1] draw patches
        box = draw_box(results["gt_seg_map"].shape, self.scale, rng)
        rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        mirror = slice(None, None, -1 if self.flip and rng.random() < 0.5 else 1)
        for name in ("img", "gt_seg_map"):
            results[name] = np.ascontiguousarray(results[name][rows, columns][:, mirror])
        return results


def crop_of(config: DenseProbeConfig) -> CropBoth:
    """Return the cut that a configuration describes."""
    return CropBoth(config.crop_scale, flip=config.crop_flip, seed=config.seed)


def described(config: DenseProbeConfig) -> str:
    """Return what a record says of the crops."""
    least, most = config.crop_scale
    mirrored = "half of them mirrored" if config.crop_flip else "none mirrored"
    return (
        f"memory drawn from {config.augmentation_epochs} random crop(s) of each training image, {least:g} to {most:g} "
        f"of its area, {mirrored}, seed {config.seed}; statistics and what needs no feature are of the whole images"
    )
