"""Blockwise masking of patches (BEiT, arXiv 2106.08254, section 2.3 and algorithm 1).

Rectangles of random area and aspect are masked until the wanted number of patches is. As in BEiT's public code the
aspect is drawn uniformly in its logarithm, a rectangle stays smaller than the grid along both axes, and one that would
mask more than is left to mask is drawn again, ten times at most. There that code stops, with one to seven patches too
few in a third of the masks of 75; here the rest is filled with single patches, as in the code of BEiT v2, so that
every mask covers the same number.
"""

import math
import random

import torch
from torch import Tensor

from backbones.config import Grid

TRIES = 10  # draws of a rectangle before there is taken to be no room for one


def block_mask(grid: Grid, *, masked: int, smallest: int, least_aspect: float, generator: random.Random) -> Tensor:
    """Return the mask (h, w), True at exactly `masked` patches.

    `smallest` is the least area of a rectangle in patches while that many are left to mask; its height over its width
    lies between `least_aspect` and the inverse.
    """
    mask_hw = torch.zeros(grid, dtype=torch.bool)
    left = masked
    while left and (added := _add_rectangle(mask_hw, left, smallest, least_aspect, generator)):
        left -= added
    visible = (~mask_hw).flatten().nonzero().flatten().tolist()
    mask_hw.view(-1)[generator.sample(visible, left)] = True
    return mask_hw


def _add_rectangle(mask_hw: Tensor, left: int, smallest: int, least_aspect: float, generator: random.Random) -> int:
    """Mask a random rectangle that adds `left` patches at most; return how many it added, 0 where none was found."""
    rows, columns = mask_hw.shape
    furthest = abs(math.log(least_aspect))
    for _ in range(TRIES):
        area = generator.uniform(smallest, left)
        aspect = math.exp(generator.uniform(-furthest, furthest))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, first = generator.randint(0, rows - height), generator.randint(0, columns - width)
        rectangle = mask_hw[top : top + height, first : first + width]
        added = height * width - int(rectangle.sum())
        if 0 < added <= left:
            rectangle.fill_(True)
            return added
    return 0
