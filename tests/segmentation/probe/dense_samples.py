"""A tiny ViT for the tests of the dense probes."""

from backbones.config import ViTConfig

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 48))
