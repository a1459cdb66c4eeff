"""What the tools that probe a frozen ViT have in common: their flags, and a configuration for every ViT by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from backbones.config import FAMILY
from engine.init_flags import InitFlags

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class ProbeArgs(InitFlags):
    """Flags of a probe that are no part of its configuration."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BACKBONE")]
    """Name of a ViT: vit_base_patch16, vit_large_patch16, vit_huge_patch14, vit_demo_patch8, ..."""
    data: Path
    """Folder of the data set."""
    out: Path
    """Folder to write to."""
    cache: Path | None = None
    """Folder of the features, which runs may share; OUT/features unless given."""


def of_every_vit(kind: Callable[..., C]) -> dict[str, Callable[[], C]]:
    """Return what makes the configuration `kind` for each ViT, by its name; `kind` takes it as `backbone`."""

    def named(name: str) -> Callable[[], C]:
        def config() -> C:
            return kind(backbone=FAMILY[name])

        vit = FAMILY[name]
        size = f"width {vit.embed_dim}, {vit.depth} blocks, {vit.num_heads} heads, patches of {vit.patch_size} px"
        config.__doc__ = size
        return config

    return {name: named(name) for name in FAMILY}
