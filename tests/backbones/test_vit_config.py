"""The architecture refuses numbers that make no ViT, and says which."""

import re
from dataclasses import replace

import pytest
import torch

from backbones.config import FAMILY, ViTConfig
from backbones.vit import ViT


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match=re.escape("embed_dim 30 is not divisible by num_heads 4.")):
        ViTConfig(embed_dim=30, depth=1, num_heads=4)


def test_sincos_needs_four_parts() -> None:
    with pytest.raises(ValueError, match="embed_dim 6 is not divisible by 4, which a sin-cos table needs"):
        ViTConfig(embed_dim=6, depth=1, num_heads=2)
    assert ViTConfig(embed_dim=6, depth=1, num_heads=2, position="learned").embed_dim == 6


@pytest.mark.parametrize(("size", "nearest"), [((30, 32), 32), ((32, 4), 8), ((19, 16), 16)])
def test_image_is_a_multiple_of_the_patch(size: tuple[int, int], nearest: int) -> None:
    message = re.escape(f"image_size {size} is no multiple of patch_size 8; the nearest is {nearest}.")
    with pytest.raises(ValueError, match=message):
        ViTConfig(embed_dim=8, depth=1, num_heads=2, patch_size=8, image_size=size)


def test_grid_counts_rows_then_columns() -> None:
    tiny = ViTConfig(embed_dim=8, depth=1, num_heads=2, patch_size=8, image_size=(16, 40))
    assert tiny.grid == (2, 5)
    assert tiny.at(24, 8).grid == (3, 1)
    assert tiny.at(16, 40) == tiny


def test_family_as_in_the_papers() -> None:
    sizes = {name: (a.embed_dim, a.depth, a.num_heads, a.patch_size) for name, a in FAMILY.items()}
    assert sizes["vit_tiny_patch16"] == (192, 12, 3, 16)  # DeiT, table 1
    assert sizes["vit_small_patch16"] == (384, 12, 6, 16)
    assert sizes["vit_base_patch16"] == (768, 12, 12, 16)  # ViT, table 1
    assert sizes["vit_large_patch16"] == (1024, 24, 16, 16)
    assert sizes["vit_huge_patch14"] == (1280, 32, 16, 14)
    assert sizes["vit_small_patch16_12heads"] == (384, 12, 12, 16)  # MoCo v3, table 2
    assert {f"vit_{size}_patch{p}" for size in ("tiny", "small", "base", "large", "huge") for p in (8, 14, 16)} <= set(
        sizes
    )


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_parameters_by_hand(name: str) -> None:
    a = FAMILY[name]
    with torch.device("meta"):  # no memory and no arithmetic
        vit = ViT(a)
    D, M, tokens = a.embed_dim, a.mlp_width, 1 + a.grid[0] * a.grid[1]
    # qkv 3 D^2 + 3 D, projection D^2 + D, MLP 2 D M + D + M, two norms 4 D
    blocks = a.depth * (4 * D * D + 2 * D * M + 9 * D + M)
    ends = (3 * a.patch_size**2 + 1) * D + D + tokens * D + 2 * D
    assert all(parameter.is_meta for parameter in vit.parameters())
    assert sum(parameter.numel() for parameter in vit.parameters()) == blocks + ends


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # with a head of 1000 classes, in millions: DeiT table 1; ViT table 1; timm's and MAE's lists give the decimals
        ("vit_tiny_patch16", 5.72),
        ("vit_small_patch16", 22.05),
        ("vit_base_patch16", 86.57),
        ("vit_base_patch8", 86.58),
        ("vit_large_patch16", 304.33),
        ("vit_huge_patch14", 632.05),
    ],
)
def test_parameters_as_published(name: str, published: float) -> None:
    with torch.device("meta"):
        vit = ViT(FAMILY[name])
    head = (vit.architecture.embed_dim + 1) * 1000
    count = sum(parameter.numel() for parameter in vit.parameters()) + head
    assert count / 1e6 == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize("relative", ["decomposed", "table", "shared_table"])
def test_every_form_builds_without_memory(relative: str) -> None:
    a = replace(FAMILY["vit_base_patch16"], relative_position=relative, window_size=14, global_blocks=(2, 5, 8, 11))
    with torch.device("meta"):
        vit = ViT(replace(a, qkv_bias="qv", layer_scale=0.1, relative_size=(1024, 1024)), class_token=False)
    assert all(parameter.is_meta for parameter in vit.parameters())
    if relative == "decomposed":
        # ViTDet-B at 1024: windows of 14 patches, 64 x 64 patches for the whole image
        assert vit.blocks[0].attn.rel_pos_h.shape == (27, 64) and vit.blocks[2].attn.rel_pos_w.shape == (127, 64)


def test_relative_tables_have_a_size_of_their_own() -> None:
    tiny = ViTConfig(embed_dim=8, depth=2, num_heads=2, patch_size=8, image_size=(16, 40))
    assert tiny.relative_grid == (2, 5)
    larger = replace(tiny, relative_size=(32, 64))
    assert (larger.grid, larger.relative_grid) == ((2, 5), (4, 8))
    assert larger.at(24, 24).relative_grid == (3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth is 0; it must be at least 1."),
        ({"depth": 2.0}, "depth is 2.0; it must be a whole number."),
        ({"num_heads": True}, "num_heads is True; it must be a whole number."),
        ({"patch_size": "8"}, "patch_size is '8'; it must be a whole number."),
        ({"image_size": 32}, "image_size is 32; it must be a height and a width in pixels."),
        ({"image_size": (32, 32, 3)}, "image_size is (32, 32, 3); it must be a height and a width in pixels."),
        ({"image_size": (32, -32)}, "a side of image_size is -32; it must be at least 1."),
        ({"relative_size": (32.0, 32)}, "a side of relative_size is 32.0; it must be a whole number."),
        ({"global_blocks": 1}, "global_blocks is 1; it must be a tuple of block numbers."),
        ({"global_blocks": (0.5,)}, "a block of global_blocks is 0.5; it must be a whole number."),
        ({"position": "sin"}, "position is 'sin'; there are: sincos, learned, none, computed."),
        ({"qkv_bias": True}, "qkv_bias is True; there are: fused, qv, none."),
        (
            {"relative_position": "rope"},
            "relative_position is 'rope'; there are: none, decomposed, table, shared_table.",
        ),
        ({"rotary": "rope"}, "rotary is 'rope'; there are: none, centred, stretched."),
        ({"rotary": "centred", "embed_dim": 12}, "embed_dim 12 in 2 heads makes 6."),
        ({"rotary": "stretched"}, "rotary 'stretched' with rotary_grid None: a grid belongs to 'stretched'"),
        ({"rotary": "centred", "rotary_grid": (2, 2)}, "rotary 'centred' with rotary_grid (2, 2): a grid belongs"),
        ({"rotary": "stretched", "rotary_grid": (2, 0)}, "a side of rotary_grid is 0; it must be at least 1."),
        ({"rotary_base": 0}, "rotary_base is 0; it must be a number above 0."),
        ({"distilled": 1}, "distilled is 1; it must be true or false."),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan; it must be a number above 0."),
        ({"mlp_ratio": -4.0}, "mlp_ratio is -4.0; it must be a number above 0."),
        ({"mlp_ratio": 0.01}, "mlp_ratio 0.01 makes no hidden width of embed_dim 8."),
        ({"layer_scale": 0.0}, "layer_scale is 0.0; it must be a number above 0."),
        ({"layer_scale": True}, "layer_scale is True; it must be a number above 0."),
        ({"window_size": -1}, "window_size is -1; it must not be negative."),
        ({"global_blocks": (0, 2, 5)}, "global_blocks [2, 5] are outside the depth of 2 blocks, 0 to 1."),
        ({"relative_size": (30, 32)}, "relative_size (30, 32) is no multiple of patch_size 8; the nearest is 32."),
        (
            {"distilled": True, "relative_position": "table"},
            "distilled with relative_position 'table': no public model is so made.",
        ),
    ],
)
def test_refused_numbers(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ViTConfig(**{"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 8, "image_size": (32, 32), **change})


def test_windowed_blocks() -> None:
    detector = ViTConfig(embed_dim=8, depth=4, num_heads=2, window_size=14, global_blocks=(1, 3))
    assert [detector.windowed(block) for block in range(4)] == [True, False, True, False]
    assert not ViTConfig(embed_dim=8, depth=4, num_heads=2).windowed(0)
