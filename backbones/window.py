"""Windows of a feature map (ViTDet, arXiv 2203.16527, section 3): partition with padding, and its inverse.

Axis letters: B batch, h x w patches, D width, n windows per image, s side of a window in patches.
"""

import torch.nn.functional as F
from torch import Tensor

from backbones.config import Grid


def partition(map_BhwD: Tensor, size: int) -> Tensor:
    """Return the windows, (B * n, size * size, D), row by row; the map is padded with zeros below and to the right.

    Padded places are not masked: attention sees them as zero tokens, as in detectron2's ViT.
    """
    B, h, w, D = map_BhwD.shape
    below, right = -h % size, -w % size
    if below or right:
        map_BhwD = F.pad(map_BhwD, (0, 0, 0, right, 0, below))
    rows, columns = (h + below) // size, (w + right) // size
    return map_BhwD.reshape(B, rows, size, columns, size, D).transpose(2, 3).reshape(-1, size * size, D)


def unpartition(windows_NsD: Tensor, size: int, grid: Grid) -> Tensor:
    """Return the map (B, h, w, D) of `grid` whose windows these are, padding taken off."""
    h, w = grid
    rows, columns = -(-h // size), -(-w // size)
    D = windows_NsD.shape[-1]
    map_BhwD = windows_NsD.reshape(-1, rows, columns, size, size, D).transpose(2, 3)
    return map_BhwD.reshape(-1, rows * size, columns * size, D)[:, :h, :w]
