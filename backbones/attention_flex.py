"""Attention with decomposed relative positions by FlexAttention (arXiv 2412.05496): the kernel adds them to the scores.

A whole image of 64 x 64 patches has 16.8 million scores a head. Its bias made as a tensor has as many numbers, 400 MB
an image and block in bfloat16 with 12 heads; here a score takes its two numbers from what a query adds to every row and
to every column, 64 + 64 a query. Axis letters: B batch, H heads, T tokens, d width of a head, h x w patches.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention


def flex_decomposed(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, to_rows_BHTh: Tensor, to_columns_BHTw: Tensor
) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v, (B, H, T, d).

    The bias of a query for the key in row r and column c is the query's number r of `to_rows` and c of `to_columns`.
    On a GPU the kernel is compiled. On a CPU, whose compiled kernel has no backward pass, PyTorch carries it out as it
    is written, with all scores.
    """
    columns = to_columns_BHTw.shape[-1]

    def placed(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + to_rows_BHTh[b, h, query, key // columns] + to_columns_BHTw[b, h, query, key % columns]

    kernel = _compiled() if q_BHTd.device.type == "cuda" else cast(Callable[..., Any], flex_attention)
    made: Tensor = kernel(q_BHTd, k_BHTd, v_BHTd, score_mod=placed)
    return made


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)
