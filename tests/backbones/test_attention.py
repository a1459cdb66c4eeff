"""Attention: by hand, the two kernels against each other, and relative positions against their definition."""

import math
import re
from typing import Any, Literal
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.backends.cuda import SDPAParams, can_use_flash_attention

import backbones.attention
from backbones.attention import (
    CPU_MATMUL_TOKENS,
    Attention,
    TableBias,
    attention,
    fused_attention,
    gpu_kernels,
    matmul_attention,
)

SHAPE = (2, 3, 20, 8)  # B, H, T, d


def test_attention_by_hand() -> None:
    q = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[2 * math.log(3.0), 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])
    v = torch.tensor([[[[4.0, 0.0, 0.0, 0.0], [0.0, 8.0, 0.0, 0.0]]]])
    # scores log 3 and 0 after division by sqrt(4): weights 3/4 and 1/4
    torch.testing.assert_close(matmul_attention(q, k, v), torch.tensor([[[[3.0, 2.0, 0.0, 0.0]]]]))
    # a bias of log 3 on the second key makes them even
    bias = torch.tensor([[[[0.0, math.log(3.0)]]]])
    torch.testing.assert_close(matmul_attention(q, k, v, bias), torch.tensor([[[[2.0, 4.0, 0.0, 0.0]]]]))


def bias_of(form: str, dtype: torch.dtype) -> Tensor | None:
    """A bias as decomposed positions give it, as a table gives it, or none."""
    if form == "none":
        return None
    heads_first = torch.randn(*((2, 3) if form == "per_image" else (3,)), 20, 20)
    # bfloat16 activations meet a float32 table; decomposed positions come in the type of the queries
    return heads_first.to(dtype if form == "per_image" else torch.float32)


@pytest.mark.parametrize("form", ["none", "per_image", "table"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        # float32: sums of 20 products in two orders, values and gradients of about 1
        (torch.float32, 1e-5),
        # bfloat16 has 8 bits, 4e-3 relative; the scores of the matmul way are rounded to it, the kernel's are not,
        # and a gradient sums 20 such roundings of numbers up to about 3
        (torch.bfloat16, 6e-2),
    ],
)
def test_kernels_agree(form: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    bias = bias_of(form, dtype)
    inputs = [torch.randn(SHAPE).to(dtype) for _ in range(3)]
    weights = torch.randn(SHAPE)
    results = []
    for kernel in (matmul_attention, fused_attention):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        bias_leaf = None if bias is None else bias.clone().requires_grad_()
        q, k, v = leaves
        # the type of the probabilities is the bias's where that is wider; autocast brings it back
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = kernel(q, k, v, bias_leaf)
        (out.float() * weights).sum().backward()
        leaves += [] if bias_leaf is None else [bias_leaf]
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for matmul, fused in zip(*results, strict=True):
        torch.testing.assert_close(matmul.float(), fused.float(), rtol=tolerance, atol=tolerance)


def test_kernel_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for name in ("matmul_attention", "fused_attention"):
        monkeypatch.setattr(backbones.attention, name, lambda *_, name=name, **__: used.append(name))
    for tokens in (CPU_MATMUL_TOKENS, CPU_MATMUL_TOKENS + 1):
        attention(*torch.zeros(3, 1, 1, tokens, 4).unbind(0))
    assert used == ["matmul_attention", "fused_attention"]
    attention(*torch.zeros(3, 1, 1, CPU_MATMUL_TOKENS + 1, 4).unbind(0), bias=torch.zeros(1))
    assert used[-1] == "matmul_attention"  # with a bias at any length


@pytest.mark.parametrize("relative", ["none", "decomposed", "table"])
def test_module_is_the_same_by_either_kernel(
    relative: Literal["none", "decomposed", "table"], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Attention(12, num_heads=3, relative=relative, made_for=(3, 4)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 30, 12, dtype=torch.float64)  # 5 x 6: the positions are resized too
    outputs, gradients = [], []
    for limit in (CPU_MATMUL_TOKENS, 0):
        monkeypatch.setattr(backbones.attention, "CPU_MATMUL_TOKENS", limit)
        module.zero_grad()
        outputs.append(module(x, (5, 6)))
        outputs[-1].square().sum().backward()
        gradients.append({name: p.grad for name, p in module.named_parameters()})
    # float64: sums in two orders; gradients up to some hundreds
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [4, 8])
def test_decomposed_positions_by_their_definition(d: int) -> None:
    """In heads narrower than rows and columns together they are added, in wider ones they ride in the product."""
    h, w = 2, 3
    module = Attention(d, num_heads=1, relative="decomposed", made_for=(h, w)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, h * w, d, dtype=torch.float64)
    q, k, v = module.qkv(x[0]).chunk(3, dim=1)
    scores = torch.empty(h * w, h * w, dtype=torch.float64)
    for i in range(h * w):
        for j in range(h * w):
            down, across = i // w - j // w, i % w - j % w
            # the queries meet the positions unscaled (MViTv2, section 4.1)
            position = module.rel_pos_h[down + h - 1] + module.rel_pos_w[across + w - 1]
            scores[i, j] = q[i] @ k[j] / d**0.5 + q[i] @ position
    expected = module.proj(scores.softmax(dim=1) @ v)
    torch.testing.assert_close(module(x, (h, w))[0], expected, rtol=0, atol=1e-12)  # float64, another order of sums


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize(("channels", "values"), [(92, 64), (108, 80), (24, 24), (20, 64)])
def test_channels_filled_up_for_a_gpu_change_nothing(channels: int, values: int, scale: float | None) -> None:
    q, k = (torch.randn(2, 3, 9, channels, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 3, 9, values, dtype=torch.float64, requires_grad=True)
    expected = matmul_attention(q, k, v, scale=scale)
    gradients = torch.autograd.grad(expected.square().sum(), (q, k, v))
    with gpu_kernels():
        made = fused_attention(q, k, v, scale=scale)
    # float64, sums in another order: unscaled scores of a hundred channels make float32 tell in the fourth digit
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.autograd.grad(made.square().sum(), (q, k, v)), gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", [768, 1280])
def test_windows_of_vitdet_suit_flash_attention(width: int, capfd: pytest.CaptureFixture[str]) -> None:
    """PyTorch itself is asked; without a GPU its rules end at the hardware, which comes after those on channels."""
    heads = {768: 12, 1280: 16}[width]
    asked: list[tuple[Tensor, ...]] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def kept(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        assert options["attn_mask"] is None
        asked.append((q, k, v))
        return kernel(q, k, v, **options)

    with FakeTensorMode(), patch("torch.nn.functional.scaled_dot_product_attention", kept):
        module = Attention(width, num_heads=heads, relative="decomposed", made_for=(14, 14))
        with gpu_kernels():
            module(torch.zeros(1, 16 * 16, width), (16, 16), window_size=14)
        (shapes,) = [[tuple(x.shape) for x in each] for each in asked]
        q, k, v = (torch.zeros(shape, dtype=torch.bfloat16, device="cuda:0") for shape in shapes)
    assert len(set(shapes)) == 1 and shapes[0][-1] % 8 == 0  # in eights: memory-efficient attention's and cuDNN's rule
    suits = can_use_flash_attention(SDPAParams(q, k, v, None, 0.0, False, False), debug=True)
    said = capfd.readouterr().err
    assert suits or "flash attention requires a CUDA device" in said, said


def test_shared_table_is_the_blocks_own() -> None:
    own = Attention(8, num_heads=2, relative="table", made_for=(2, 3), class_token=True)
    for parameter in own.parameters():
        nn.init.normal_(parameter, std=0.5)
    shared = TableBias((2, 3), num_heads=2, class_token=True)
    state = own.state_dict()
    shared.load_state_dict({"relative_position_bias_table": state.pop("relative_position_bias_table")})
    plain = Attention(8, num_heads=2)
    plain.load_state_dict(state)
    x = torch.randn(2, 7, 8)
    assert torch.equal(plain(x, (2, 3), shared((2, 3))), own(x, (2, 3)))


def test_query_and_value_bias_is_a_bias_without_keys() -> None:
    qv = Attention(8, num_heads=2, qkv_bias="qv")
    for parameter in qv.parameters():
        nn.init.normal_(parameter, std=0.5)
    fused = Attention(8, num_heads=2)
    state = qv.state_dict()
    q, v = state.pop("q_bias"), state.pop("v_bias")
    fused.load_state_dict({**state, "qkv.bias": torch.cat([q, torch.zeros(8), v])})
    x = torch.randn(2, 5, 8)
    assert torch.equal(qv(x), fused(x))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=re.escape("a width of 30 is not divisible by 4 attention heads.")):
        Attention(30, num_heads=4)
    for relative in ("decomposed", "table"):
        with pytest.raises(ValueError, match="relative positions need every patch of a grid; a masked image has none"):
            Attention(8, num_heads=2, relative=relative, made_for=(2, 2))(torch.zeros(1, 4, 8))
