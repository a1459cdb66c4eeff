"""The memory of training patches, and the three forms of features that are read out.

Axis letters: N images, P patches of an image (row-major), M patches of the memory, D width, C classes, X any patches.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmentation.probe.config import FeatureKind
from segmentation.probe.patches import Grid, PatchFeatures

EPS = 1e-6  # added to the variance, as in the linear probe of images
IMAGES_AT_ONCE = 16
PATCHES_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Training patches with a labelled pixel, drawn without replacement, in the order of the draw."""

    image_M: np.ndarray
    """Place of the image in its split."""
    position_M: np.ndarray
    feature_MD: Tensor
    """float16, raw."""
    share_MC: Tensor
    labelled_M: np.ndarray
    note: str


def draw_memory(train: PatchFeatures, size: int, *, seed: int) -> Memory:
    """Return `size` patches, all where there are fewer. Raises ValueError where no patch has a labelled pixel."""
    usable = np.flatnonzero(train.labelled_NP.reshape(-1) > 0)
    if not len(usable):
        raise ValueError("no patch of the training images has a labelled pixel, so there is no memory to read from.")
    drawn = np.random.default_rng([seed, 0]).permutation(usable)[:size]
    order = np.argsort(drawn)  # the files are read from the first to the last byte
    row_M, position_M = np.divmod(drawn, train.labelled_NP.shape[1])
    feature_MD = torch.empty(len(drawn), train.feature_NPD.shape[2], dtype=torch.float16)
    share_MC = torch.empty(len(drawn), train.share_NPC.shape[2], dtype=torch.float16)
    for start in range(0, len(drawn), PATCHES_AT_ONCE):
        part = order[start : start + PATCHES_AT_ONCE]
        feature_MD[part] = torch.from_numpy(np.asarray(train.feature_NPD[row_M[part], position_M[part]]))
        share_MC[part] = torch.from_numpy(np.asarray(train.share_NPC[row_M[part], position_M[part]]))
    note = f"memory: {len(drawn)} of {len(usable)} training patches with a labelled pixel"
    if size > len(usable):
        note += f", all of them ({size} were asked for)"
    if absent := int((~share_MC.any(dim=0)).sum()):
        note += f"; {absent} of {share_MC.shape[1]} classes are in none and are never predicted"
    return Memory(
        image_M=train.index_N[row_M],
        position_M=position_M,
        feature_MD=feature_MD,
        share_MC=share_MC,
        labelled_M=np.asarray(train.labelled_NP[row_M, position_M]),
        note=note,
    )


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of all patches of the training images, labelled or not."""

    mean_PD: Tensor
    """By position."""
    mean_D: Tensor
    std_D: Tensor
    share_PC: Tensor
    """The mean label map: of the labelled pixels at a position, the share of each class; zeros where there are none."""
    pixels_C: Tensor
    """Labelled pixels of each class."""

    def to(self, device: torch.device) -> "Statistics":
        """Return them on a device."""
        return Statistics(**{name: value.to(device) for name, value in vars(self).items()})

    def form(self, feature_XD: Tensor, position_X: Tensor, kind: FeatureKind) -> Tensor:
        """Return features in one of the three forms."""
        if kind == "standardised":
            return (feature_XD - self.mean_D) / self.std_D
        return feature_XD - self.mean_PD[position_X] if kind == "position_regressed" else feature_XD


def statistics(train: PatchFeatures) -> Statistics:
    """Return the statistics of the training patches, summed in float64 from one pass over the files."""
    images, patches, width = train.feature_NPD.shape
    sum_PD, square_D = np.zeros((patches, width)), np.zeros(width)
    pixels_PC = np.zeros((patches, train.share_NPC.shape[2]))
    for start in range(0, images, IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        feature_BPD = np.asarray(train.feature_NPD[part], dtype=np.float64)
        sum_PD += feature_BPD.sum(axis=0)
        square_D += np.square(feature_BPD).sum(axis=(0, 1))
        share_BPC = np.asarray(train.share_NPC[part], dtype=np.float64)
        pixels_PC += np.rint(share_BPC * train.labelled_NP[part, :, None]).sum(axis=0)
    mean_D = sum_PD.sum(axis=0) / (images * patches)
    variance_D = np.maximum(square_D / (images * patches) - np.square(mean_D), 0)
    share_PC = pixels_PC / np.maximum(pixels_PC.sum(axis=1, keepdims=True), 1)
    values = sum_PD / images, mean_D, np.sqrt(variance_D + EPS), share_PC, pixels_PC.sum(axis=0)
    mean_PD, mean_D, std_D, share_PC, pixels_C = (torch.from_numpy(value).float() for value in values)
    return Statistics(mean_PD=mean_PD, mean_D=mean_D, std_D=std_D, share_PC=share_PC, pixels_C=pixels_C)


def angles(grid: Grid) -> Tensor:
    """Return (P, 4) of length 1 whose cosine similarity falls with the distance in rows and in columns, and says no
    more: retrieval by position alone."""
    row_P, column_P = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    turn = math.pi / max(grid)
    row_P, column_P = turn * row_P.flatten(), turn * column_P.flatten()
    return torch.stack([row_P.sin(), row_P.cos(), column_P.sin(), column_P.cos()], dim=1) / math.sqrt(2)


def rows_and_columns(grid: Grid) -> Tensor:
    """Return (P, rows + columns), 1 where a patch is: what a linear classifier knows of positions alone."""
    row_P, column_P = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.cat([torch.eye(grid[0])[row_P.flatten()], torch.eye(grid[1])[column_P.flatten()]], dim=1)
