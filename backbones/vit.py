"""The one ViT (arXiv 2010.11929) that every task of the project uses, with the parameter names of MAE's code.

It encodes the visible tokens of a masked image (MAE, section 3), gives all tokens for classification, and gives
feature maps for dense tasks. Masking lives in the caller: nothing here hides a patch unless it is told which to keep.
Axis letters: B batch, C channels, H x W pixels, h x w patches, N = h * w, K kept patches, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.config import Grid, ViTConfig
from backbones.layers import LAYER_NORM_EPS, Block, PatchEmbed, initialise
from backbones.position import resize_position, sincos_table


class ViT(nn.Module):
    """A plain ViT; `class_token` and `final_norm` say which of the optional parameters a task has a use for."""

    cls_token: Tensor | None

    def __init__(
        self,
        architecture: ViTConfig,
        *,
        class_token: bool = True,
        final_norm: bool = True,
        drop_path: float = 0.0,
        train_position: bool = True,
    ) -> None:
        """Build with random weights from the global generator.

        `drop_path` is the rate of the last block, rising linearly from 0 at the first. `train_position` False keeps
        the position table fixed, as in MAE's pre-training; fine-tuning trains it.
        """
        super().__init__()
        a = architecture
        self.architecture = a
        self.prefix = int(class_token)
        self.patch_embed = PatchEmbed(patch_size=a.patch_size, in_chans=a.in_chans, embed_dim=a.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, a.embed_dim)) if class_token else None
        table = sincos_table(a.embed_dim, a.grid, self.prefix) if a.position == "sincos" else torch.empty(0)
        if a.position == "learned":
            table = torch.empty(1, self.prefix + a.grid[0] * a.grid[1], a.embed_dim)
        self.pos_embed = nn.Parameter(table, requires_grad=train_position)
        rates = [drop_path * i / max(1, a.depth - 1) for i in range(a.depth)]
        self.blocks = nn.ModuleList(
            Block(a.embed_dim, num_heads=a.num_heads, mlp_ratio=a.mlp_ratio, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(a.embed_dim, eps=LAYER_NORM_EPS) if final_norm else nn.Identity()
        self.apply(initialise)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        if a.position == "learned":
            nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return every token, (B, prefix + N, D), after the final norm where there is one."""
        x_BND, _ = self._embed(image_BCHW)
        return self._encode(x_BND)

    def encode_visible(self, image_BCHW: Tensor, keep_BK: Tensor) -> Tensor:
        """Return the tokens of the kept patches only, (B, prefix + K, D), in the order of `keep_BK`.

        `keep_BK` holds patch numbers (row-major). The encoder never sees the other patches (MAE, section 3).
        """
        x_BND, _ = self._embed(image_BCHW)
        x_BKD = x_BND.gather(1, keep_BK[:, :, None].expand(-1, -1, x_BND.shape[2]))
        return self._encode(x_BKD)

    def feature_maps(self, image_BCHW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Return the patch tokens after each block of `taps` (0-based, ascending) as maps (B, D, h, w).

        No norm is applied: ViTDet's and mmsegmentation's dense models take the residual stream as it is.
        """
        depth = len(self.blocks)
        if list(taps) != sorted(set(taps)) or not taps or taps[0] < 0 or taps[-1] >= depth:
            raise ValueError(f"taps {list(taps)} must be ascending block numbers from 0 to {depth - 1}.")
        x_BND, (rows, columns) = self._embed(image_BCHW)
        x_BTD = self._with_class_token(x_BND)
        maps = []
        for number, block in enumerate(self.blocks[: taps[-1] + 1]):
            x_BTD = block(x_BTD)
            if number in taps:
                patches_BDN = x_BTD[:, self.prefix :].transpose(1, 2)
                maps.append(patches_BDN.reshape(x_BTD.shape[0], -1, rows, columns))
        return maps

    def _embed(self, image_BCHW: Tensor) -> tuple[Tensor, Grid]:
        """Return patch tokens with their positions added, (B, N, D), and the grid."""
        x_BhwD = self.patch_embed(image_BCHW)
        grid = (x_BhwD.shape[1], x_BhwD.shape[2])
        table_1PD = resize_position(self.pos_embed, self.architecture.grid, grid, self.prefix)
        return x_BhwD.flatten(1, 2) + table_1PD[:, self.prefix :], grid

    def _with_class_token(self, x_BND: Tensor) -> Tensor:
        if self.cls_token is None:
            return x_BND
        first_11D = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first_11D.to(x_BND.dtype).expand(x_BND.shape[0], -1, -1), x_BND], dim=1)

    def _encode(self, x_BND: Tensor) -> Tensor:
        x_BTD = self._with_class_token(x_BND)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.norm(x_BTD)
