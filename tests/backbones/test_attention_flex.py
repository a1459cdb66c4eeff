"""Relative positions added by FlexAttention: uncompiled, on a CPU, the outputs and gradients of the present path."""

from typing import Any

import pytest
import torch
from torch import nn

import backbones.attention
from backbones.attention import Attention
from backbones.attention_flex import flex_decomposed

UNCOMPILED = "ignore:flex_attention called without torch.compile"


@pytest.mark.parametrize("grid", [(3, 4), (5, 6)])
@pytest.mark.filterwarnings(UNCOMPILED)
def test_outputs_and_gradients_are_those_of_the_present_path(
    grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of four channels meet seven and eleven rows and columns; at another grid the positions are resized too.

    PyTorch refuses a backward pass on CPUs, for which it compiles none. As written it is carried out all the same.
    """
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    torch.manual_seed(0)
    module = Attention(8, num_heads=2, relative="decomposed", made_for=(3, 4)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, grid[0] * grid[1], 8, dtype=torch.float64, requires_grad=True)
    outputs, gradients = [], []
    for flex in (False, True):
        module.flex = flex
        outputs.append(module(x, grid))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), [x, *module.parameters()]))
    assert not outputs[0].isnan().any()
    # float64: sums in two orders; gradients up to some hundreds
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings(UNCOMPILED)
def test_rows_and_columns_are_not_taken_for_each_other() -> None:
    """Two rows, three columns; a query that adds 50 to row 1 and to column 2 sees key 5 alone."""
    q, k = torch.zeros(2, 1, 1, 6, 16).unbind(0)
    v = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 16).contiguous()
    to_rows, to_columns = torch.zeros(1, 1, 6, 2), torch.zeros(1, 1, 6, 3)
    to_rows[..., 1], to_columns[..., 2] = 50, 50
    torch.testing.assert_close(flex_decomposed(q, k, v, to_rows, to_columns), torch.full((1, 1, 6, 16), 5.0))


def test_it_is_off_and_for_whole_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(backbones.attention, "flex_decomposed", lambda q, *_: (calls.append(q.shape), q)[1])
    module = Attention(16, num_heads=2, relative="decomposed", made_for=(6, 6))
    x = torch.randn(1, 36, 16)
    module(x, (6, 6))
    assert not calls and module.flex is False
    module.flex = True
    module(x, (6, 6), window_size=3)  # 3 + 3 rows and columns ride in the product of 8 channels
    assert not calls
    module(x, (6, 6))
    assert calls == [(1, 2, 36, 8)]
