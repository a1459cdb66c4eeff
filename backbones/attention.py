"""Multi-head self-attention of a ViT block, with relative position where there is one.

Axis letters: B batch (or windows), T tokens, D width, H heads, d width of a head, h x w patches.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.attention_chunked import attention_in_pieces
from backbones.attention_flex import flex_decomposed
from backbones.config import Grid, QkvBias
from backbones.relative_position import decomposed_bias, place_channels, table_bias, table_rows
from backbones.rotary import turned
from backbones.window import partition, unpartition

# On CPUs matmul-softmax-matmul is up to 4 times faster than the fused kernel at 50 to 200 tokens, and 1.5 times slower
# from 1,024 on in float32; with a bias, which leaves the fused kernel to PyTorch's plain one, it is never slower. In
# bfloat16, and with decomposed relative positions, long attention is fastest in pieces (docs/performance.md).
CPU_MATMUL_TOKENS = 512
EIGHT = 8  # channels; of the kernels in PyTorch's sdp_utils.cpp
_GPU_KERNELS: ContextVar[bool] = ContextVar("gpu_kernels", default=False)


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """Take the kernels of a GPU on any device: a plan on fake CPU tensors counts what a GPU would keep."""
    token = _GPU_KERNELS.set(True)
    try:
        yield
    finally:
        _GPU_KERNELS.reset(token)


def matmul_attention(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Return softmax(q k^T * scale + bias) v, (B, H, T, d), by two matmuls; the scale is 1 / sqrt(d) unless given.

    `bias` broadcasts to (B, H, T, T).
    """
    if scale is None:
        scale = q_BHTd.shape[-1] ** -0.5
    scores = (q_BHTd if scale == 1 else q_BHTd * scale) @ k_BHTd.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v_BHTd


def fused_attention(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Return the same as `matmul_attention` by PyTorch's fused kernels.

    Those of a GPU want as many channels of values as of queries (flash), in eights (memory-efficient, cuDNN); zeros
    fill up what is missing, which changes no score and adds values that are left out again. Nothing is filled up while
    operations are traced, so that those counted are of the channels that there are.
    """
    if bias is not None:
        bias = bias.to(q_BHTd.dtype)
    channels, wanted = v_BHTd.shape[-1], q_BHTd.shape[-1]
    if channels == wanted or _on_cpu(q_BHTd) or torch.jit.is_tracing():
        return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=bias, scale=scale)
    scale = wanted**-0.5 if scale is None else scale
    whole = -(-max(channels, wanted) // EIGHT) * EIGHT
    q_BHTd, k_BHTd, v_BHTd = (F.pad(x, (0, whole - x.shape[-1])) for x in (q_BHTd, k_BHTd, v_BHTd))
    return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=bias, scale=scale)[..., :channels]


def attention(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Return attention by the kernel that is the faster on this device at this length."""
    if bias is None and q_BHTd.dtype == torch.bfloat16 and _long_on_cpu(q_BHTd):
        return attention_in_pieces(q_BHTd, k_BHTd, v_BHTd, scale=scale)
    by_matmul = _on_cpu(q_BHTd) and (bias is not None or q_BHTd.shape[2] <= CPU_MATMUL_TOKENS)
    return (matmul_attention if by_matmul else fused_attention)(q_BHTd, k_BHTd, v_BHTd, bias, scale=scale)


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

    flex = False
    """Whether decomposed positions of more rows and columns than a head has channels are added by FlexAttention."""

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        qkv_bias: QkvBias = "fused",
        bias: bool = True,
        neighbours: bool = False,
        relative: Literal["none", "decomposed", "table"] = "none",
        made_for: Grid = (1, 1),
        class_token: bool = False,
        norm: nn.Module | None = None,
    ) -> None:
        """Build with zero relative positions, as fine-tuning starts where pre-training had none.

        A `qkv_bias` "qv" is BEiT's q_bias and v_bias and no bias for the keys, which softmax would not see,
        and `bias` is that of the projection behind.
        `neighbours` says which channels a rotary position turns together (backbones/rotary.py). `made_for` is the grid
        of the image or window that the relative positions cover. `norm` is of what the projection behind reads.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"a width of {embed_dim} is not divisible by {num_heads} attention heads.")
        self.num_heads, self.relative, self.made_for, self.class_token = num_heads, relative, made_for, class_token
        self.neighbours = neighbours
        self.qkv = nn.Linear(embed_dim, embed_dim * 3, bias=qkv_bias == "fused")
        self.q_bias = nn.Parameter(torch.zeros(embed_dim)) if qkv_bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(embed_dim)) if qkv_bias == "qv" else None
        self.norm = norm
        self.proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        if relative == "decomposed":
            self.rel_pos_h, self.rel_pos_w = (
                nn.Parameter(torch.zeros(2 * side - 1, embed_dim // num_heads)) for side in made_for
            )
        elif relative == "table":
            rows = table_rows(made_for, class_token=class_token)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(
        self,
        x_BTD: Tensor,
        grid: Grid | None = None,
        shared_HTT: Tensor | None = None,
        turn_2TF: Tensor | None = None,
        mask_BTT: Tensor | None = None,
        *,
        window_size: int = 0,
    ) -> Tensor:
        """Return (B, T, D). `grid` is that of the patches, None where some are missing; `shared_HTT` is a TableBias's.

        With a `window_size` a patch attends to those of its window alone. `turn_2TF` is what `rotary.turn` gives of the
        image, or of a window where there are windows. Decomposed relative positions meet queries that are turned.
        `mask_BTT` is True where a token may look at another; it is for whole images without decomposed positions.
        Tokens in front of those that a table of relative positions knows have none. Raises ValueError for windows or
        relative positions without a grid.
        """
        qkv_BT3D, bias_3D = self._project(x_BTD)
        if window_size:
            if grid is None:
                raise ValueError("windows need every patch of a grid; a masked image has none.")
            image = grid
            qkv_BT3D = partition(qkv_BT3D.unflatten(1, image), window_size, bias_3D.to(qkv_BT3D.dtype))
            grid = (window_size, window_size)
        if turn_2TF is not None:
            qkv_BT3D = self._turned(qkv_BT3D, turn_2TF)
        q_BHTd, k_BHTd, v_BHTd = self._heads(qkv_BT3D)
        if self.relative == "decomposed":
            y_BHTd = self._decomposed(q_BHTd, k_BHTd, v_BHTd, _known(grid))
        else:
            bias_HTT = shared_HTT if self.relative == "none" else self._table(_known(grid))
            y_BHTd = attention(q_BHTd, k_BHTd, v_BHTd, _bias(bias_HTT, mask_BTT, like=q_BHTd))
        y_BTD = y_BHTd.transpose(1, 2).flatten(2)
        if window_size:
            y_BTD = unpartition(y_BTD, window_size, image).flatten(1, 2)
        return self.proj(y_BTD if self.norm is None else self.norm(y_BTD))

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries, keys and values, (B, T, 3 * D), and the bias that is in them, (3 * D,)."""
        bias_3D: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias_3D = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv_BT3D = F.linear(x_BTD, self.qkv.weight, bias_3D)
        return qkv_BT3D, qkv_BT3D.new_zeros(qkv_BT3D.shape[-1]) if bias_3D is None else bias_3D

    def _turned(self, qkv_BT3D: Tensor, turn_2TF: Tensor) -> Tensor:
        """Return queries, keys and values, (B, T, 3 * D), queries and keys turned."""
        D = qkv_BT3D.shape[-1] // 3
        qk_BTnd = qkv_BT3D[..., : 2 * D].unflatten(2, (2 * self.num_heads, -1))
        turned_BTnd = turned(qk_BTnd, turn_2TF[..., None, :], neighbours=self.neighbours)
        return torch.cat([turned_BTnd.flatten(2), qkv_BT3D[..., 2 * D :]], dim=-1)

    def _heads(self, qkv_BT3D: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, each (B, H, T, d)."""
        return qkv_BT3D.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _table(self, grid: Grid) -> Tensor:
        """Return what is added to the scores, (H, T, T)."""
        return table_bias(self.relative_position_bias_table, self.made_for, grid, class_token=self.class_token)

    def _decomposed(self, q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, grid: Grid) -> Tensor:
        """Return attention with what a query adds to the keys of each row and of each column of the grid.

        A whole image on a CPU is done in pieces. Elsewhere, where a head has as many channels as the grid has rows and
        columns, the two ride in the product of queries and keys: a query gets them as further channels, a key gets ones
        in the channels of its row and its column. That is the same sum, without a tensor of (B, H, T, T) to be made and
        added.
        """
        to_rows_BHTh, to_columns_BHTw = decomposed_bias(q_BHTd, self.rel_pos_h, self.rel_pos_w, grid)
        # its products are hidden from a trace, which counts them
        if self.flex and sum(grid) > q_BHTd.shape[-1] and not torch.jit.is_tracing():
            return flex_decomposed(q_BHTd, k_BHTd, v_BHTd, to_rows_BHTh, to_columns_BHTw)
        if _long_on_cpu(q_BHTd):
            return attention_in_pieces(q_BHTd, k_BHTd, v_BHTd, (to_rows_BHTh, to_columns_BHTw))
        if sum(grid) > q_BHTd.shape[-1]:
            bias_BHTT = (to_rows_BHTh[..., :, None] + to_columns_BHTw[..., None, :]).flatten(-2)
            return attention(q_BHTd, k_BHTd, v_BHTd, bias_BHTT)
        scaled = q_BHTd * q_BHTd.shape[-1] ** -0.5
        places = place_channels(grid, like=k_BHTd).expand(*k_BHTd.shape[:2], -1, -1)
        q_more = torch.cat([scaled, to_rows_BHTh.to(scaled.dtype), to_columns_BHTw.to(scaled.dtype)], dim=-1)
        return attention(q_more, torch.cat([k_BHTd, places], dim=-1), v_BHTd, scale=1.0)


def _bias(bias_HTT: Tensor | None, mask_BTT: Tensor | None, *, like: Tensor) -> Tensor | None:
    """Return what is added to the scores of `like`, (..., T, T): the bias, none of it for tokens in front of those that
    it knows, and minus infinity where the mask is False."""
    if bias_HTT is not None and (more := like.shape[2] - bias_HTT.shape[-1]):
        bias_HTT = F.pad(bias_HTT, (more, 0, more, 0))
    if mask_BTT is None:
        return bias_HTT
    hidden_B1TT = like.new_zeros(mask_BTT.shape).masked_fill(~mask_BTT, -math.inf)[:, None]
    return hidden_B1TT if bias_HTT is None else bias_HTT + hidden_B1TT


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not _GPU_KERNELS.get()


def _long_on_cpu(q_BHTd: Tensor) -> bool:
    """Return whether there are many tokens, on a CPU, and nothing traces: loops over pieces unroll there."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return _on_cpu(q_BHTd) and q_BHTd.shape[2] > CPU_MATMUL_TOKENS and not traced


def _known(grid: Grid | None) -> Grid:
    if grid is None:
        raise ValueError("relative positions need every patch of a grid; a masked image has none.")
    return grid
