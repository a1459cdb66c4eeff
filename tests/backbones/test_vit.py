"""The ViT: what it encodes, what it never sees, and its maps."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.config import ViTConfig
from backbones.layers import Block, matmul_attention
from backbones.position import sincos_table
from backbones.vit import ViT

TINY = ViTConfig(embed_dim=16, depth=3, num_heads=2, patch_size=8, image_size=(32, 32))


def test_matmul_attention_equals_sdpa() -> None:
    q, k, v = torch.randn(3, 2, 4, 37, 8, dtype=torch.float64).unbind(0)
    expected = F.scaled_dot_product_attention(q, k, v)
    # float64: sums of 37 products in two orders differ by a few 1e-16
    torch.testing.assert_close(matmul_attention(q, k, v), expected, rtol=0, atol=1e-13)


def test_attention_by_hand() -> None:
    q = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[2 * math.log(3.0), 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])
    v = torch.tensor([[[[4.0, 0.0, 0.0, 0.0], [0.0, 8.0, 0.0, 0.0]]]])
    # scores log 3 and 0 after division by sqrt(4): weights 3/4 and 1/4
    torch.testing.assert_close(matmul_attention(q, k, v), torch.tensor([[[[3.0, 2.0, 0.0, 0.0]]]]))


@pytest.mark.parametrize("class_token", [True, False])
def test_all_patches_kept_is_forward(class_token: bool) -> None:
    vit = ViT(TINY, class_token=class_token).eval()
    image = torch.randn(2, 3, 32, 32)
    everything = torch.arange(16).expand(2, -1)
    assert torch.equal(vit.encode_visible(image, everything), vit(image))
    assert vit(image).shape == (2, 16 + class_token, 16)


def test_tokens_follow_the_order_of_keep() -> None:
    vit = ViT(TINY).double().eval()
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    keep = torch.tensor([[3, 11, 6]])
    permuted = vit.encode_visible(image, keep[:, [2, 0, 1]])
    expected = vit.encode_visible(image, keep)[:, [0, 3, 1, 2]]
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-12)  # sums in another order, float64


def test_hidden_patches_are_never_seen() -> None:
    vit = ViT(TINY).eval()
    image = torch.randn(2, 3, 32, 32)
    keep = torch.tensor([[0, 5, 15], [1, 2, 8]])
    seen = vit.encode_visible(image, keep)
    other = torch.full_like(image, 1e3)
    for row, patches in enumerate(keep.tolist()):
        for patch in patches:
            y, x = 8 * (patch // 4), 8 * (patch % 4)
            other[row, :, y : y + 8, x : x + 8] = image[row, :, y : y + 8, x : x + 8]
    assert torch.equal(vit.encode_visible(other, keep), seen)
    assert not torch.allclose(vit(other), vit(image))


@pytest.mark.parametrize("class_token", [True, False])
def test_feature_maps_of_a_wide_image(class_token: bool) -> None:
    vit = ViT(TINY, class_token=class_token, final_norm=False).eval()
    image = torch.randn(2, 3, 24, 40)
    maps = vit.feature_maps(image, [0, 2])
    assert [tuple(m.shape) for m in maps] == [(2, 16, 3, 5)] * 2
    tokens = vit(image)[:, vit.prefix :]  # without a final norm, the residual stream
    assert torch.equal(maps[1].flatten(2).transpose(1, 2), tokens)
    # row-major: patch 7 of a grid of 5 columns stands in row 1, column 2
    assert torch.equal(maps[1][:, :, 1, 2], tokens[:, 7])


def test_maps_are_taken_before_the_norm() -> None:
    normed, plain = ViT(TINY), ViT(TINY, final_norm=False)
    plain.load_state_dict({name: t for name, t in normed.state_dict().items() if not name.startswith("norm.")})
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(normed.feature_maps(image, [2])[0], plain.feature_maps(image, [2])[0])
    assert torch.equal(normed(image), normed.norm(plain(image)))


@pytest.mark.parametrize("taps", [[], [3], [-1, 2], [1, 1], [2, 0]])
def test_bad_taps_are_refused(taps: list[int]) -> None:
    message = re.escape(f"taps {taps} must be ascending block numbers from 0 to 2.")
    with pytest.raises(ValueError, match=message):
        ViT(TINY).feature_maps(torch.zeros(1, 3, 32, 32), taps)


def test_ragged_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image of 32 x 36 pixels is no multiple of the patch of 8; pad or resize"):
        ViT(TINY)(torch.zeros(1, 3, 32, 36))


def test_drop_path_rises_linearly() -> None:
    four = ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))
    paths = [block.drop_path for block in ViT(four, drop_path=0.3).blocks if isinstance(block, Block)]
    assert isinstance(paths[0], nn.Identity)
    assert [path.drop_prob for path in paths[1:]] == pytest.approx([0.1, 0.2, 0.3])
    assert all(isinstance(block.drop_path, nn.Identity) for block in ViT(four).blocks if isinstance(block, Block))


def test_optional_parameters() -> None:
    names = {name for name, _ in ViT(TINY, class_token=False, final_norm=False).named_parameters()}
    full = {name for name, _ in ViT(TINY).named_parameters()}
    assert full - names == {"cls_token", "norm.weight", "norm.bias"}
    assert not ViT(TINY, train_position=False).pos_embed.requires_grad
    assert ViT(TINY).pos_embed.requires_grad


def test_sincos_table_of_a_wide_architecture() -> None:
    wide = ViT(TINY.at(16, 48))
    assert torch.equal(wide.pos_embed, sincos_table(16, (2, 6), prefix=1))


def test_initial_weights() -> None:
    vit = ViT(ViTConfig(embed_dim=64, depth=1, num_heads=2, patch_size=8, image_size=(32, 32), position="learned"))
    # Xavier on the patch embedding as one matrix of 3 * 8 * 8 pixels -> 64: uniform in +-sqrt(6 / (192 + 64))
    bound = math.sqrt(6 / 256)
    assert 0.99 * bound < float(vit.patch_embed.proj.weight.detach().abs().max()) <= bound
    # 1,088 numbers of deviation 0.02: their own deviation is within 10 % (4.6 standard errors)
    assert float(vit.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert vit.pos_embed.shape == (1, 17, 64)
