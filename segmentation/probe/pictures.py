"""Features of patches as colours: three principal components, one basis for all images, so colours can be compared.

Axis letters: M patches of the memory, P of an image, D width, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.images.reading import read_reduced
from files.writing import replacing
from segmentation.data.classes import palette_of
from segmentation.data.labels import IGNORED, decode, read_label_map
from segmentation.data.layout import SegmentationFolder
from segmentation.probe.patches import PatchFeatures

NAME = "patches.png"
MOST_IMAGES = 6
SIDE = 224  # pixels of the longer side of each picture
GAP = 4
ENDS = (0.01, 0.99)  # quantiles of a component that are drawn black and full


@dataclass(frozen=True)
class Basis:
    """From features to red, green and blue."""

    mean_D: Tensor
    axes_D3: Tensor
    low_3: Tensor
    high_3: Tensor

    def colours(self, feature_PD: Tensor) -> np.ndarray:
        """Return (P, 3) uint8."""
        component_P3 = (feature_PD.double().cpu() - self.mean_D) @ self.axes_D3
        share_P3 = (component_P3 - self.low_3) / (self.high_3 - self.low_3).clamp(min=1e-12)
        colour_P3: np.ndarray = share_P3.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        return colour_P3


def basis_of(feature_MD: Tensor) -> Basis:
    """Return the three directions of the largest variance, that of the largest first; fewer where there are fewer.

    An axis points where its largest entry is above zero, so equal features have equal colours.
    """
    x_MD = feature_MD.double().cpu()
    mean_D = x_MD.mean(dim=0)
    covariance_DD = (x_MD - mean_D).T @ (x_MD - mean_D) / len(x_MD)
    axes_D3 = torch.linalg.eigh(covariance_DD).eigenvectors.flip(1)[:, :3]
    largest_3 = axes_D3.gather(0, axes_D3.abs().argmax(dim=0)[None])[0]
    axes_D3 = axes_D3 * largest_3.sign()
    ordered_M3 = ((x_MD - mean_D) @ axes_D3).sort(dim=0).values
    low, high = (ordered_M3[round(end * (len(x_MD) - 1))] for end in ENDS)
    return Basis(mean_D, axes_D3, low, high)


def draw_patches(
    path: Path, val: PatchFeatures, folder: SegmentationFolder, basis: Basis, form: Callable[[Tensor], Tensor]
) -> Path:
    """Write the first images of the validation split, their label maps and their patches side by side, a row each.

    `form` makes of raw features those that the basis is of.
    """
    palette_C3 = palette_of(folder.classes)
    table_V3 = np.zeros((256, 3), dtype=np.uint8)  # what is ignored is black
    table_V3[: len(palette_C3)] = palette_C3
    table_V3[IGNORED] = 0
    rows = []
    for number, index in enumerate(val.index_N[:MOST_IMAGES].tolist()):
        pair = folder.val.pairs[index]
        image, (width, height) = read_reduced(pair.image, SIDE)
        factor = SIDE / max(width, height)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        label_HW = decode(read_label_map(pair.labels), folder.val.label_mapping, pair.labels)
        feature_PD = torch.from_numpy(np.asarray(val.feature_NPD[number], dtype=np.float32))
        colour_hw3 = basis.colours(form(feature_PD)).reshape(*val.grid, -1)
        rows.append(
            [
                image.convert("RGB").resize(size),
                Image.fromarray(table_V3[label_HW]).resize(size, Image.Resampling.NEAREST),
                Image.fromarray(colour_hw3).resize(size, Image.Resampling.NEAREST),
            ]
        )
    widest = max(row[0].width for row in rows) + GAP
    page = Image.new("RGB", (3 * widest - GAP, sum(row[0].height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        for column, picture in enumerate(row):
            page.paste(picture, (column * widest, top))
        top += row[0].height + GAP
    with replacing(path) as temporary:
        page.save(temporary, format="PNG")
    return path
