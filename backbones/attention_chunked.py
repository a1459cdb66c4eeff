"""Attention in pieces, for CPUs: scores that stay in the cache, and are made again in the backward pass.

The scores of a ViTDet-B block at 1,024 pixels are 800 MB in float32, which fresh memory makes slower to write than to
compute. Here a piece of them, some rows of one head or some heads, is made, used and forgotten (arXiv 2112.05682,
section 2; keys are not split, so that the softmax is the usual one). Axis letters: B batch, H heads, T tokens, d width
of a head, h x w patches; N = B * H, n and r the heads and the rows of a piece.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 2**20  # scores: 4 MB in float32; from 2**18 to 2**22 the best or near it (docs/performance.md)

Piece = tuple[slice, slice]


def attention_in_pieces(
    q_BHTd: Tensor,
    k_BHTd: Tensor,
    v_BHTd: Tensor,
    places: tuple[Tensor, Tensor] | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Return softmax(q k^T * scale + places) v, (B, H, T, d); the scale is 1 / sqrt(d) unless given.

    `places` is what a query adds to the keys of each row, (B, H, T, h), and of each column, (B, H, T, w), where
    h * w = T. All are of one type, in which the scores are rounded; softmax computes in float32 at least.
    """
    B, H, _, d = q_BHTd.shape
    if scale is None:
        scale = d**-0.5
    parts = (q_BHTd if scale == 1 else q_BHTd * scale, k_BHTd, v_BHTd, *(places or ()))
    y_NTd = _InPieces.apply(*(part.to(v_BHTd.dtype).flatten(0, 1).contiguous() for part in parts))
    return y_NTd.unflatten(0, (B, H))


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NTd: Tensor, k_NTd: Tensor, v_NTd: Tensor, *places: Tensor) -> Tensor:
        y_NTd = torch.empty_like(v_NTd)
        with torch.autocast(q_NTd.device.type, enabled=False):
            for piece in _pieces(q_NTd):
                y_NTd[piece] = torch.bmm(_probabilities(q_NTd, k_NTd, places, piece), v_NTd[piece[0]])
        ctx.save_for_backward(q_NTd, k_NTd, v_NTd, *places)
        return y_NTd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NTd: Tensor) -> tuple[Tensor, ...]:
        q_NTd, k_NTd, v_NTd, *places = ctx.saved_tensors
        dq_NTd, *dplaces = (torch.empty_like(x) for x in (q_NTd, *places))
        # several pieces add to these: at least float32, so that bfloat16 rounds once
        dk_NTd, dv_NTd = (x.new_zeros(x.shape, dtype=_wide(x)) for x in (k_NTd, v_NTd))
        with torch.autocast(q_NTd.device.type, enabled=False):
            for piece in _pieces(q_NTd):
                heads = piece[0]
                p_nrT = _probabilities(q_NTd, k_NTd, places, piece)
                dv_NTd[heads] += torch.bmm(p_nrT.transpose(1, 2), dy_NTd[piece])
                dp_nrT = torch.bmm(dy_NTd[piece], v_NTd[heads].transpose(1, 2))
                ds_nrT = torch._softmax_backward_data(dp_nrT, p_nrT, -1, p_nrT.dtype)
                dq_NTd[piece] = torch.bmm(ds_nrT, k_NTd[heads])
                dk_NTd[heads] += torch.bmm(ds_nrT.transpose(1, 2), q_NTd[piece])
                if dplaces:
                    ds_nrhw = ds_nrT.unflatten(2, (places[0].shape[2], places[1].shape[2]))
                    dplaces[0][piece], dplaces[1][piece] = ds_nrhw.sum(dim=3), ds_nrhw.sum(dim=2)
        return (dq_NTd, dk_NTd.to(k_NTd.dtype), dv_NTd.to(v_NTd.dtype), *dplaces)


def _pieces(q_NTd: Tensor) -> Iterator[Piece]:
    """Yield heads and rows whose scores are about PIECE: whole heads, or rows of one head where it has more."""
    N, T, _ = q_NTd.shape
    heads, rows = max(1, PIECE // T**2), min(T, max(1, PIECE // T))
    for head in range(0, N, heads):
        for row in range(0, T, rows):
            yield slice(head, head + heads), slice(row, row + rows)


def _probabilities(q_NTd: Tensor, k_NTd: Tensor, places: tuple[Tensor, ...] | list[Tensor], piece: Piece) -> Tensor:
    """Return the softmax of a piece of the scores, (n, r, T)."""
    scores_nrT = torch.bmm(q_NTd[piece], k_NTd[piece[0]].transpose(1, 2))
    if places:
        to_rows_nrh, to_columns_nrw = places[0][piece], places[1][piece]
        scores_nrhw = scores_nrT.unflatten(2, (to_rows_nrh.shape[2], to_columns_nrw.shape[2]))
        scores_nrhw.add_(to_rows_nrh[..., :, None]).add_(to_columns_nrw[..., None, :])
    return scores_nrT.softmax(dim=-1)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
