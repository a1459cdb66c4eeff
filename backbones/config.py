"""The ViT family: widths, depths and heads by name.

Ti is from DeiT (arXiv 2012.12877, table 1), S from DeiT, B, L and H from ViT (arXiv 2010.11929, table 1). `demo` is
the size of the embedded scenes and of the tests.
"""

from dataclasses import dataclass, replace
from typing import Literal

Position = Literal["sincos", "learned"]
Grid = tuple[int, int]  # patches (rows, columns)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The architecture of one ViT: everything that its weights fit and nothing else."""

    embed_dim: int
    """Width of a token."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads per block; divides embed_dim."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the position table is made for; other sizes resample the table."""
    in_chans: int = 3
    """Channels of the image."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over embed_dim."""
    position: Position = "sincos"
    """How the position table starts: the fixed sin-cos table of MAE, or a small random table to be learned."""

    def __post_init__(self) -> None:
        """Raise ValueError where the numbers make no ViT."""
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}.")
        if self.position == "sincos" and self.embed_dim % 4:
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by 4, which a sin-cos table needs.")
        for side in self.image_size:
            if side < self.patch_size or side % self.patch_size:
                raise ValueError(
                    f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}; "
                    f"the nearest is {max(1, round(side / self.patch_size)) * self.patch_size}."
                )

    @property
    def grid(self) -> Grid:
        """Patches (rows, columns) of the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def at(self, height: int, width: int) -> "ViTConfig":
        """The same architecture with a position table for another image size in pixels."""
        return replace(self, image_size=(height, width))


FAMILY: dict[str, ViTConfig] = {
    "vit_tiny_patch16": ViTConfig(embed_dim=192, depth=12, num_heads=3),
    "vit_small_patch16": ViTConfig(embed_dim=384, depth=12, num_heads=6),
    "vit_base_patch16": ViTConfig(embed_dim=768, depth=12, num_heads=12),
    "vit_large_patch16": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
    "vit_huge_patch14": ViTConfig(embed_dim=1280, depth=32, num_heads=16, patch_size=14),
    "vit_demo_patch8": ViTConfig(embed_dim=192, depth=6, num_heads=6, patch_size=8, image_size=(64, 64)),
}
