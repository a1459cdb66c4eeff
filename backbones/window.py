"""Windows of a feature map (ViTDet, arXiv 2203.16527, section 3): partition with padding, and its inverse.

Axis letters: B batch, h x w patches, D width, n windows per image, s side of a window in patches.
"""

import torch
from torch import Tensor

from backbones.config import Grid


def partition(map_BhwD: Tensor, size: int, padding_D: Tensor) -> Tensor:
    """Return the windows, (B * n, size * size, D), row by row; the map is padded below and to the right.

    Padded places are not masked: attention sees them as tokens. Where the map comes from a linear layer they are its
    bias: detectron2's ViT pads with zeros before that layer, which is the same and computes them.
    """
    B, h, w, D = map_BhwD.shape
    below, right = -h % size, -w % size
    if right:
        map_BhwD = torch.cat([map_BhwD, padding_D.expand(B, h, right, D)], dim=2)
    if below:
        map_BhwD = torch.cat([map_BhwD, padding_D.expand(B, below, w + right, D)], dim=1)
    rows, columns = (h + below) // size, (w + right) // size
    return map_BhwD.reshape(B, rows, size, columns, size, D).transpose(2, 3).reshape(-1, size * size, D)


def unpartition(windows_NsD: Tensor, size: int, grid: Grid) -> Tensor:
    """Return the map (B, h, w, D) of `grid` whose windows these are, padding taken off."""
    h, w = grid
    rows, columns = -(-h // size), -(-w // size)
    D = windows_NsD.shape[-1]
    map_BhwD = windows_NsD.reshape(-1, rows, columns, size, size, D).transpose(2, 3)
    return map_BhwD.reshape(-1, rows * size, columns * size, D)[:, :h, :w]
