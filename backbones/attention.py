"""Multi-head self-attention of a ViT block, with relative position where there is one.

Axis letters: B batch (or windows), T tokens, D width, H heads, d width of a head, h x w patches.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import Grid
from backbones.relpos import decomposed_bias, table_bias, table_rows

# matmul-softmax-matmul is 1.5 to 10 times faster than the fused kernel on CPUs up to this length; above it the
# (B, H, T, T) scores no longer fit a cache (benchmarks/attention.py)
CPU_MATMUL_TOKENS = 1024


def matmul_attention(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v, (B, H, T, d), by two matmuls; `bias` broadcasts to (B, H, T, T)."""
    scores = (q_BHTd * q_BHTd.shape[-1] ** -0.5) @ k_BHTd.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v_BHTd


def fused_attention(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the same as `matmul_attention` by PyTorch's fused kernels."""
    if bias is not None:
        bias = bias.to(q_BHTd.dtype)
    return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=bias)


def attention(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return attention by the kernel that is the faster on this device at this length."""
    by_matmul = q_BHTd.device.type == "cpu" and q_BHTd.shape[2] <= CPU_MATMUL_TOKENS
    return (matmul_attention if by_matmul else fused_attention)(q_BHTd, k_BHTd, v_BHTd, bias)


class TableBias(nn.Module):
    """BEiT's relative position bias (arXiv 2106.08254, section 2.2): a number per head for every 2-D distance.

    The name of its parameter is BEiT's.
    """

    def __init__(self, grid: Grid, *, num_heads: int, class_token: bool) -> None:
        """Start at zero, as MAE's fine-tuning does where pre-training had no relative positions."""
        super().__init__()
        self.grid, self.class_token = grid, class_token
        rows = table_rows(grid, class_token=class_token)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(self, grid: Grid) -> Tensor:
        """Return (H, T, T) for an image or window of `grid` patches."""
        return table_bias(self.relative_position_bias_table, self.grid, grid, class_token=self.class_token)


class Attention(nn.Module):
    """Self-attention with one fused projection, rows of `qkv` ordered q | k | v.

    The names of its relative positions are ViTDet's (`rel_pos_h`, `rel_pos_w`) or BEiT's.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        qv_bias: bool = False,
        relative: Literal["none", "decomposed", "table"] = "none",
        made_for: Grid = (1, 1),
        class_token: bool = False,
    ) -> None:
        """Build with zero relative positions, as fine-tuning starts where pre-training had none.

        `qv_bias` has BEiT's q_bias and v_bias and no bias for the keys, which softmax would not see. `made_for` is the
        grid of the image or window that the relative positions cover.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"a width of {embed_dim} is not divisible by {num_heads} attention heads.")
        self.num_heads, self.relative, self.made_for, self.class_token = num_heads, relative, made_for, class_token
        self.qkv = nn.Linear(embed_dim, embed_dim * 3, bias=not qv_bias)
        self.q_bias = nn.Parameter(torch.zeros(embed_dim)) if qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(embed_dim)) if qv_bias else None
        self.proj = nn.Linear(embed_dim, embed_dim)
        if relative == "decomposed":
            self.rel_pos_h, self.rel_pos_w = (
                nn.Parameter(torch.zeros(2 * side - 1, embed_dim // num_heads)) for side in made_for
            )
        elif relative == "table":
            rows = table_rows(made_for, class_token=class_token)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(self, x_BTD: Tensor, grid: Grid | None = None, shared_HTT: Tensor | None = None) -> Tensor:
        """Return (B, T, D). `grid` is that of the patches, None where some are missing; `shared_HTT` is a TableBias's.

        Raises ValueError for relative positions without a grid.
        """
        q_BHTd, k_BHTd, v_BHTd = self._project(x_BTD)
        bias = shared_HTT if self.relative == "none" else self._bias(q_BHTd, grid)
        y_BHTd = attention(q_BHTd, k_BHTd, v_BHTd, bias)
        return self.proj(y_BHTd.transpose(1, 2).flatten(2))

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, H, T, d)."""
        bias_3D: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias_3D = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        B, T, D = x_BTD.shape
        qkv_BT3D = F.linear(x_BTD, self.qkv.weight, bias_3D)
        q, k, v = qkv_BT3D.reshape(B, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _bias(self, q_BHTd: Tensor, grid: Grid | None) -> Tensor:
        """Return what is added to the scores, (B, H, T, T) or (H, T, T)."""
        if grid is None:
            raise ValueError("relative positions need every patch of a grid; a masked image has none.")
        if self.relative == "table":
            return table_bias(self.relative_position_bias_table, self.made_for, grid, class_token=self.class_token)
        to_rows_BHTh, to_columns_BHTw = decomposed_bias(q_BHTd, self.rel_pos_h, self.rel_pos_w, grid)
        return (to_rows_BHTh[..., :, None] + to_columns_BHTw[..., None, :]).flatten(-2)
