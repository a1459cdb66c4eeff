"""The ViT with the interface of an mmsegmentation backbone: an image in, one map per block of out_indices out.

It is registered, so a config of mmengine's Runner can take it alone: `type="MAETransferViT"` after
`custom_imports = dict(imports=["segmentation.model.backbone"])`, with `neck=dict(type="Feature2Pyramid", ...)`. For
layer-wise decay import `segmentation.mmseg_plugin` too and take its constructor; mmseg's does not find the blocks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.read import read_checkpoint
from files.typed import from_json
from segmentation.host import MODELS


@MODELS.register_module()
class MAETransferViT(nn.Module):
    """The residual stream after the blocks `out_indices`, without a final norm."""

    final_norm = False  # of the ViT

    def __init__(
        self,
        architecture: Mapping[str, Any],
        *,
        out_indices: Sequence[int],
        drop_path: float = 0.0,
        class_token: bool = True,
        init: str | None = None,
        frozen: bool = False,
    ) -> None:
        """Build from the fields of ViTConfig as plain values; `init` is a backbone checkpoint's path.

        `class_token` False is for weights without one: the maps do not hold it.

        `frozen` lets nothing of the ViT learn and keeps it in eval mode. The last of `out_indices` must be the last
        block: blocks behind it would get no gradient.
        """
        super().__init__()
        config = from_json(ViTConfig, architecture)
        if not out_indices or out_indices[-1] != config.depth - 1:
            raise ValueError(
                f"out_indices {list(out_indices)} must end with the last block, {config.depth - 1}; name others by "
                "--out-indices."
            )
        self.out_indices = tuple(out_indices)
        self.vit = ViT(config, class_token=class_token, final_norm=self.final_norm, drop_path=drop_path)
        if init is not None:
            load_checkpoint(self.vit, read_checkpoint(InitialWeights(path=Path(init))))
        self.frozen = frozen
        if frozen:
            self.vit.requires_grad_(False)
            self.vit.eval()

    def train(self, mode: bool = True) -> "MAETransferViT":
        """Set the mode of all but a frozen ViT."""
        return super().train(mode and not self.frozen)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return one map (B, embed_dim, H / patch, W / patch) per block of `out_indices`."""
        return tuple(self.vit.feature_maps(image_BCHW, self.out_indices))
