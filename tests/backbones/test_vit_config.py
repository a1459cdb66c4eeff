"""The architecture refuses numbers that make no ViT, and says which."""

import re

import pytest

from backbones.config import FAMILY, ViTConfig
from backbones.layers import Attention


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match=re.escape("embed_dim 30 is not divisible by num_heads 4.")):
        ViTConfig(embed_dim=30, depth=1, num_heads=4)
    with pytest.raises(ValueError, match=re.escape("a width of 30 is not divisible by 4 attention heads.")):
        Attention(30, num_heads=4)


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
