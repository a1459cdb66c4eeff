"""Masks of patches (MAE, section 3.1 and table 1f), every one with the same number of visible patches.

A mask is drawn as noise, a number per patch: the patches of lowest noise stay visible. Uniform noise makes random
masks; blocks and the grid put the patches to mask last. Axis letters: B batch, N patches, K kept patches, h x w grid.
"""

import random

import torch
from torch import Tensor

from backbones.config import Grid
from pretraining.beit.masking import block_mask
from pretraining.mae.config import Sampling

BLOCK = 16 / 196  # least area of a masked rectangle as a share of the grid, and its least aspect: BEiT's
ASPECT = 0.3


def kept_count(patches: int, mask_ratio: float) -> int:
    """Return how many patches the encoder sees: int(patches * (1 - ratio)), as MAE's code rounds."""
    if not 0 < mask_ratio < 1:  # with no patch masked the loss is 0 / 0
        raise ValueError(f"mask_ratio {mask_ratio} is outside (0, 1); MAE's is 0.75.")
    kept = int(patches * (1 - mask_ratio))
    if kept < 1:
        raise ValueError(f"mask_ratio {mask_ratio} keeps none of {patches} patches; lower it.")
    if kept == patches:
        raise ValueError(f"mask_ratio {mask_ratio} masks none of {patches} patches; raise it.")
    return kept


def keep_lowest(noise_BN: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the `kept` patches of lowest noise (B, K), and the mask (B, N), True where masked."""
    keep_BK = noise_BN.argsort(dim=1)[:, :kept]
    mask_BN = torch.ones_like(noise_BN).scatter(1, keep_BK, 0.0).bool()
    return keep_BK, mask_BN


def draw_noise(grid: Grid, *, kept: int, sampling: Sampling) -> Tensor:
    """Return noise (N,) of which the `kept` lowest are the visible patches, from the global generators.

    `random` draws patches uniformly; `block` masks BEiT's rectangles, their least area in proportion to the grid;
    `grid` keeps one patch of every two by two at a ratio of 75 %, and at any other the same regular order goes on.
    """
    rows, columns = grid
    if sampling == "grid":
        return regular_order(grid).flatten()
    noise_N = torch.rand(rows * columns)
    if sampling == "random":
        return noise_N
    masked = rows * columns - kept
    mask_hw = block_mask(
        grid,
        masked=masked,
        smallest=min(masked, max(1, round(BLOCK * rows * columns))),
        least_aspect=ASPECT,
        generator=random.Random(random.getrandbits(64)),
    )
    return noise_N + mask_hw.flatten()


def regular_order(grid: Grid) -> Tensor:
    """Return a rank (h, w) by which the first patches are spread evenly, however many are taken: a Bayer matrix.

    A quarter is the first of every two by two, a half is a chequerboard. It is the same for every image.
    """
    rank = torch.zeros(1, 1)
    while rank.shape[0] < max(grid):
        rank = torch.cat([torch.cat([4 * rank, 4 * rank + 2], 1), torch.cat([4 * rank + 3, 4 * rank + 1], 1)])
    return rank[: grid[0], : grid[1]]
