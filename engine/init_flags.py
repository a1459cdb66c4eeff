"""The flags that declare initial weights, the same for every tool that starts from some."""

from dataclasses import dataclass, fields
from pathlib import Path

from backbones.weights.declaration import (
    Family,
    Heads,
    InitialWeights,
    PixelMean,
    PixelStd,
    ResizePatch,
    TableSize,
    TrustPickle,
    Whose,
)
from backbones.weights.hub import located


@dataclass(frozen=True, kw_only=True)
class InitFlags:
    """Flags of the initial weights; a tool's dataclass of flags inherits them."""

    init: Path | None = None
    """Weights of a ViT to start from: a file, `hf:OWNER/MODEL[@REVISION]`, `timm:NAME.TAG` or an https address; absent
    means random weights."""
    init_source: Family = "own"
    init_heads: Heads = None
    init_image_size: TableSize = None
    init_mean: PixelMean = None
    init_std: PixelStd = None
    init_resize_patch: ResizePatch = False
    init_architecture: Whose = "recipe"
    trust_pickle: TrustPickle = False

    def weights(self) -> InitialWeights | None:
        """Return what the flags declare, None for random weights; weights by name are fetched where they are not here.

        Raises ValueError where a file is missing, and for a name that leads to none.
        """
        declared = InitialWeights(
            path=self.init or Path(),
            source=self.init_source,
            num_heads=self.init_heads,
            image_size=self.init_image_size,
            mean=self.init_mean,
            std=self.init_std,
            trust_pickle=self.trust_pickle,
            resize_patch=self.init_resize_patch,
            architecture=self.init_architecture,
        )
        if self.init is not None:
            return located(declared)
        nothing = InitialWeights(path=Path())
        given = [
            f.name
            for f in fields(nothing)
            if f.name != "trust_pickle" and getattr(declared, f.name) != getattr(nothing, f.name)
        ]  # trust may be meant for a tokenizer
        if given:
            raise ValueError(f"{', '.join(given)} of the initial weights declared, but no file; give --init FILE.")
        return None
