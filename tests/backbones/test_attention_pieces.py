"""Attention in pieces equals attention in one piece: values, gradients, and no worse rounding."""

import pytest
import torch
from torch import Tensor

from backbones import attention_chunked as attention_pieces
from backbones.attention import CPU_MATMUL_TOKENS, Attention, attention, matmul_attention
from backbones.attention_chunked import attention_in_pieces

GRID = (5, 7)


def inputs(dtype: torch.dtype, *, batch: int = 2, heads: int = 3, grid: tuple[int, int] = GRID) -> list[Tensor]:
    """q, k, v and what a query adds to rows and columns."""
    torch.manual_seed(0)
    tokens = grid[0] * grid[1]
    return [torch.randn(batch, heads, tokens, width).to(dtype).requires_grad_() for width in (8, 8, 8, *grid)]


def in_one_piece(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return matmul_attention(q, k, v, (rows[..., :, None] + columns[..., None, :]).flatten(-2))


def values_and_gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, weights)]


# scores of a head: 35 x 35 = 1,225. Part of a row, some rows with a rest, two heads with a rest, all at once
@pytest.mark.parametrize("piece", [20, 35 * 8, 2 * 1225, 10**6])
@pytest.mark.parametrize("placed", [True, False])
def test_pieces_of_any_size(piece: int, placed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_pieces, "PIECE", piece)
    leaves = inputs(torch.float64)
    used = leaves if placed else leaves[:3]
    q, k, v, *places = used
    ours = attention_in_pieces(q, k, v, (places[0], places[1]) if placed else None)
    whole = in_one_piece(*leaves) if placed else matmul_attention(q, k, v)
    for mine, theirs in zip(values_and_gradients(ours, used), values_and_gradients(whole, used), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)  # float64, sums of 35 products


def test_a_scale_of_ones_own() -> None:
    q, k, v, *_ = inputs(torch.float64)
    torch.testing.assert_close(attention_in_pieces(q, k, v, scale=0.7), matmul_attention(q, k, v, scale=0.7))


def test_bfloat16_rounds_no_worse_than_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_pieces, "PIECE", 35 * 8)
    rounded = inputs(torch.bfloat16)
    exact = [leaf.detach().double().requires_grad_() for leaf in rounded]
    truth = values_and_gradients(in_one_piece(*exact), exact)
    errors = []
    for out in (attention_in_pieces(*rounded[:3], (rounded[3], rounded[4])), in_one_piece(*rounded)):
        found = values_and_gradients(out, rounded)
        errors.append([float((a.double() - b).square().mean().sqrt()) for a, b in zip(found, truth, strict=True)])
    for mine, theirs in zip(*errors, strict=True):
        assert mine <= 1.5 * theirs  # both round scores and probabilities; the order of the two additions differs


@pytest.mark.parametrize("relative", ["decomposed", "none"])
def test_a_long_image_on_a_cpu_goes_through_pieces(relative: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (24, 24)
    assert grid[0] * grid[1] > CPU_MATMUL_TOKENS
    calls = []
    monkeypatch.setattr(
        "backbones.attention.attention_in_pieces", lambda *a, **k: (calls.append(1), attention_in_pieces(*a, **k))[1]
    )
    torch.manual_seed(0)
    module = Attention(16, num_heads=2, relative=relative, made_for=grid)  # type: ignore[arg-type]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 576, 16)
    module(x, grid)
    assert len(calls) == (relative == "decomposed")  # in float32 the fused kernel is the faster without positions
    with torch.autocast("cpu", torch.bfloat16):
        module(x, grid)
    assert len(calls) == (2 if relative == "decomposed" else 1)
    q, k, v = (torch.randn(1, 2, 576, 8).bfloat16() for _ in range(3))
    torch.testing.assert_close(attention(q, k, v).float(), matmul_attention(q, k, v).float(), rtol=0, atol=2e-2)
