"""Rotary positions (RoPE, arXiv 2104.09864) of patches in two axes: the place of a patch turns its query and its key.

Half of the pairs of channels of a head turn by the patch's row, the other half by its column, at the frequencies
base ** -(i / (d / 4)). Two conventions are public, and both know no image size: DINOv3's (arXiv 2508.10104, section
3.2; facebookresearch/dinov3, `rope_position_encoding.py`) and EVA-02's (arXiv 2303.11331; baaivision/EVA,
`VisionRotaryEmbeddingFast`). Perception Encoder's (arXiv 2504.13181) is EVA-02's with the columns first and, but in its
gigantic models, the first row and column numbered 1 (timm/models/eva.py). Tokens before the patches have no place and
are not turned. DINOv3's pre-training draws coordinates at random besides (shift, jitter, rescaling); training here
does not.
In the windows of ViTDet a patch has the angles of its place in the window, as an image of the window's size would give
it, and in blocks of the whole image those of the image: so does EVA-02's detection (`rope_win` and `rope_glb` of its
`det/detectron2/modeling/backbone/vit.py`). In a window of 14 patches neighbours are then as far apart as in an image of
224 pixels.
Axis letters: B batch, T tokens, N patches (row-major), n heads of queries and keys, d width of a head, F = d / 2 pairs.
"""

import math

import torch
from torch import Tensor

from backbones.config import Grid, ViTConfig


def patch_angles(architecture: ViTConfig, grid: Grid, *, like: Tensor) -> Tensor:
    """Return by how much each patch of the grid turns each pair, (N, F) in radians.

    In float32, or in float64 where `like` is: a bfloat16 angle is off by up to 2 %.
    """
    a, F = architecture, architecture.embed_dim // architecture.num_heads // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    frequency = a.rotary_base ** -(torch.arange(F // 2, dtype=dtype, device=like.device) / (F // 2))
    axes = []
    for number, side in enumerate(grid):
        place = torch.arange(side, dtype=dtype, device=like.device)
        if a.rotary_grid is not None:
            axes.append(torch.outer((place + a.rotary_offset) / side * a.rotary_grid[number], frequency))
        else:
            axes.append(2 * math.pi * torch.outer(2 * (place + 0.5) / side - 1, frequency))
    (rows, columns), (down_hf, across_wf) = grid, axes
    down = down_hf[:, None].expand(-1, columns, -1)
    across = across_wf[None].expand(rows, -1, -1)
    both = [down, across] if a.rotary_first == "rows" else [across, down]
    return torch.cat(both, dim=-1).flatten(0, 1)


def turn(angles_NF: Tensor, num_prefix_tokens: int) -> Tensor:
    """Return cosine and sine of the angles, (2, ..., T, F), with tokens before the patches that are not turned.

    `angles_NF` may have a batch before its two axes.
    """
    still = angles_NF.new_zeros(*angles_NF.shape[:-2], num_prefix_tokens, angles_NF.shape[-1])
    angles_TF = torch.cat([still, angles_NF], dim=-2)
    return torch.stack([angles_TF.cos(), angles_TF.sin()])


def turned(x_BTnd: Tensor, turn_2T1F: Tensor, *, neighbours: bool) -> Tensor:
    """Return queries or keys turned by what `turn` gave, (B, T, n, d), in their own type.

    Channels 2 i and 2 i + 1 turn together where `neighbours`, i and i + d / 2 elsewhere.
    """
    cos, sin = turn_2T1F
    first, second = (x_BTnd[..., 0::2], x_BTnd[..., 1::2]) if neighbours else x_BTnd.chunk(2, dim=-1)
    parts = (first * cos - second * sin, second * cos + first * sin)
    both = torch.stack(parts, dim=-1).flatten(-2) if neighbours else torch.cat(parts, dim=-1)
    return both.to(x_BTnd.dtype)
