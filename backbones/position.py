"""Position tables: the sin-cos table of MAE, and the resampling of tables and patch projections.

Axis letters: N patches (row-major) of h rows and w columns, D width, E = D / 2, F = D / 4, P = num_prefix_tokens + N
rows of a table.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.config import Grid


def sincos_table(embed_dim: int, grid: Grid, num_prefix_tokens: int, *, like: Tensor | None = None) -> Tensor:
    """Return the fixed 2-D table (1, num_prefix_tokens + rows * columns, embed_dim), the first rows zero.

    It is in float32 on the default device, or where `like` is, and then in float64 where `like` is.

    The layout is MAE's, [sin x, cos x, sin y, cos y] with x the column: the first half of the width says where a
    patch stands horizontally (MAE, appendix A.1; MoCo v3 has the two halves swapped).
    """
    if embed_dim % 4:
        raise ValueError(f"embed_dim {embed_dim} is not divisible by 4, which a 2-D sin-cos table needs.")
    rows, columns = grid
    quarter = embed_dim // 4
    device = None if like is None else like.device
    if device is not None and device.type == "mps":  # it has no float64
        device = torch.device("cpu")
    dtype = torch.float32 if like is None else torch.promote_types(like.dtype, torch.float32)
    # float64: at position 64 the float32 angle is off by 4e-6, which shows against published tables
    frequency = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64, device=device) / quarter)
    across_wE, down_hE = (_waves(side, frequency).to(dtype) for side in (columns, rows))
    across_NE, down_NE = across_wE.repeat(rows, 1), down_hE.repeat_interleave(columns, dim=0)
    patches_ND = torch.cat([across_NE, down_NE], dim=1)
    table_1PD = torch.cat([patches_ND.new_zeros(num_prefix_tokens, embed_dim), patches_ND])[None]
    return table_1PD if like is None else table_1PD.to(like.device)


def _waves(side: int, frequency_F: Tensor) -> Tensor:
    """Return sines and cosines of the places along one axis, (side, 2 F)."""
    angles = torch.outer(torch.arange(side, dtype=torch.float64, device=frequency_F.device), frequency_F)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def resize_position(table_1PD: Tensor, old: Grid, new: Grid, num_prefix_tokens: int) -> Tensor:
    """Return the table resampled from `old` to `new` patches (bicubic, no antialias, in float32).

    The first `num_prefix_tokens` rows (class token) are kept. Follows MAE's, DeiT's, BEiT's and detectron2's
    convention; timm's default (antialias) moves values by up to 0.05 at 14 -> 32. Raises ValueError where the rows do
    not fit `old`.
    """
    if table_1PD.shape[1] != num_prefix_tokens + math.prod(old):
        raise ValueError(
            f"position table has {table_1PD.shape[1]} rows, which is not {num_prefix_tokens} + {old[0]} x {old[1]}; "
            "name the grid that it was made for."
        )
    if old == new:
        return table_1PD
    kept, patches = table_1PD[:, :num_prefix_tokens], table_1PD[:, num_prefix_tokens:]
    patches_1Dhw = patches.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    # float32: bicubic weights in bfloat16 have 8 bits
    with torch.autocast(table_1PD.device.type, enabled=False):
        resized = F.interpolate(patches_1Dhw, size=new, mode="bicubic", align_corners=False)
    resized = resized.permute(0, 2, 3, 1).reshape(1, math.prod(new), -1).to(table_1PD.dtype)
    return torch.cat([kept, resized], dim=1)


def resize_patches(kernel_DChw: Tensor, size: int) -> Tensor:
    """Return the patch projection resampled to `size` x `size` pixels (bicubic, in float32).

    ViTDet's way from H/14 to patches of 16 (arXiv 2203.16527, appendix A.2): values are not rescaled.
    """
    resized = F.interpolate(kernel_DChw.float(), size=(size, size), mode="bicubic", align_corners=False)
    return resized.to(kernel_DChw.dtype)
