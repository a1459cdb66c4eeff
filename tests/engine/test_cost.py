"""MACs by hand, whichever kernel attention takes, and what is not counted is refused."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import backbones.attention
from backbones.attention import Attention, gpu_kernels
from backbones.config import ViTConfig
from backbones.vit import ViT
from engine.cost import cost_of, count_flops

WIDTH, CHANNELS = 32, 3 * 8 * 8


def _by_hand(side: int) -> int:
    """MACs of one block of four times the width in its MLP on `side` pixels in patches of 8, five for each norm."""
    patches = (side // 8) ** 2
    tokens = patches + 1
    linear = patches * CHANNELS * WIDTH + 12 * tokens * WIDTH * WIDTH
    attention = 2 * tokens * tokens * WIDTH  # q k^T and the scores times v
    norms = 3 * 5 * tokens * WIDTH
    return linear + attention + norms


def _vit(side: int) -> tuple[ViT, Tensor]:
    vit = ViT(ViTConfig(embed_dim=WIDTH, depth=1, num_heads=2, patch_size=8, image_size=(side, side)))
    return vit, torch.zeros(1, 3, side, side)


@pytest.mark.parametrize("side", [176, 184])  # 485 and 530 tokens: below and above those of the fused kernel on a CPU
@pytest.mark.parametrize("kernel", ["chosen", "fused", "matmul"])
def test_attention_costs_the_same_by_every_kernel(side: int, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "matmul":
        monkeypatch.setattr(backbones.attention, "CPU_MATMUL_TOKENS", 10**6)
    with gpu_kernels() if kernel == "fused" else nullcontext():
        assert count_flops(*_vit(side)) == _by_hand(side)


def test_frozen_attention_is_counted() -> None:
    vit, image = _vit(184)
    vit.requires_grad_(False)
    assert cost_of(vit, image) == {"flops_per_image": 0, "frozen_flops_per_image": _by_hand(184)}


def test_channels_that_only_fill_up_are_not_counted() -> None:
    """Relative positions ride in 24 + 5 + 7 channels of queries and keys, which a GPU's kernels get as 40."""
    layer = Attention(24, num_heads=1, relative="decomposed", made_for=(5, 7)).requires_grad_(False)
    x_BTD = torch.zeros(1, 35, 24)
    by_hand = 35 * 4 * 24 * 24 + 35 * (5 + 7) * 24 + 35 * 35 * (24 + 5 + 7 + 24)
    for kernels in (nullcontext(), gpu_kernels()):
        with kernels:
            assert count_flops(lambda x: layer(x, (5, 7)), x_BTD) == by_hand


@pytest.mark.parametrize("flex", [False, True])
@pytest.mark.parametrize("kernels", [nullcontext, gpu_kernels])
def test_relative_positions_that_are_a_bias_cost_the_same_by_every_kernel(flex: bool, kernels) -> None:
    """Two heads of 12 channels, fewer than 5 rows and 8 columns."""
    layer = Attention(24, num_heads=2, relative="decomposed", made_for=(5, 8)).requires_grad_(False)
    layer.flex = flex
    by_hand = 40 * 4 * 24 * 24 + 2 * (40 * (5 + 8) * 12 + 2 * 40 * 40 * 12)
    with kernels():
        assert count_flops(lambda x: layer(x, (5, 8)), torch.zeros(1, 40, 24)) == by_hand


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x @ x


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: torch.baddbmm(x[None], x[None], x[None]), "aten::baddbmm"),
        (lambda x: torch.mv(x, x[0]), "aten::mv"),
        (lambda x: torch.cdist(x, x), "aten::cdist"),
        (lambda x: _Hidden.apply(x), "prim::PythonOp"),
    ],
)
def test_products_that_are_not_known_are_refused(operation, name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return operation(x)

    model = Model()
    with pytest.raises(NotImplementedError, match=f"Model: the MACs of {name}.* are not counted.*needs a handle"):
        count_flops(model, torch.ones(3, 3))
    assert model.training


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_resampling_is_no_product(mode: str) -> None:
    anti = mode != "area"
    resized = nn.functional.interpolate
    assert count_flops(lambda x: resized(x, size=(2, 2), mode=mode, antialias=anti), torch.ones(1, 1, 4, 4)) < 100
