"""Masked autoencoder (arXiv 2111.06377, section 3): a ViT encoder on visible patches, a light decoder on all.

Parameter names are those of the official code, the encoder under `encoder.`. Axis letters: B batch, N patches, K kept
patches, D width of the encoder, E width of the decoder, P pixels of a patch (p * p * C, channel last).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.attention import Attention
from backbones.layers import LAYER_NORM_EPS, Block, initialise
from backbones.position import sincos_table
from backbones.vit import ViT
from pretraining.masking import keep_lowest, kept_count


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder made of a batch."""

    prediction_BNP: Tensor
    """In the space of the target."""
    mask_BN: Tensor
    """True where the encoder did not see the patch."""
    loss_B: Tensor
    """Mean squared error over the hidden patches of each image."""


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss."""

    def __init__(
        self,
        encoder: ViT,
        *,
        mask_ratio: float,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        normalise_target: bool,
    ) -> None:
        """`encoder` has a class token and a final norm, as in the paper; its positions stay fixed."""
        super().__init__()
        a = encoder.architecture
        self.encoder = encoder
        self.normalise_target = normalise_target
        self.kept = kept_count(a.grid[0] * a.grid[1], mask_ratio)
        self.decoder_embed = nn.Linear(a.embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        table = sincos_table(decoder_dim, a.grid, encoder.prefix)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(Attention(decoder_dim, num_heads=decoder_heads)) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(decoder_dim, a.patch_size**2 * a.in_chans)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_norm, self.decoder_pred):
            part.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: tuple[Tensor, Tensor, list[str]]) -> dict[str, Tensor]:
        """Return {"reconstruction": scalar} of (images, noise_BN, ids); the lowest noise stays visible."""
        image_BCHW, noise_BN, _ = batch
        return {"reconstruction": self.reconstruct(image_BCHW, noise_BN).loss_B.mean()}

    def reconstruct(self, image_BCHW: Tensor, noise_BN: Tensor) -> Reconstruction:
        """Return prediction, mask and loss of each image."""
        keep_BK, mask_BN = keep_lowest(noise_BN, self.kept)
        prediction_BNP = self._decode(self.encoder.encode_visible(image_BCHW, keep_BK), keep_BK).float()
        target_BNP, _, _ = self.target(image_BCHW.float())
        error_BN = (prediction_BNP - target_BNP).square().mean(dim=2)
        loss_B = (error_BN * mask_BN).sum(dim=1) / mask_BN.sum(dim=1)
        return Reconstruction(prediction_BNP, mask_BN, loss_B)

    def target(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the target (B, N, P), and the mean and deviation (B, N, 1) taken out of it (0 and 1 if none).

        The variance is unbiased and 1e-6 is added to it, as in the official code.
        """
        patches_BNP = patchify(image_BCHW, self.encoder.architecture.patch_size)
        if not self.normalise_target:
            zero = torch.zeros_like(patches_BNP[..., :1])
            return patches_BNP, zero, zero + 1
        mean = patches_BNP.mean(dim=2, keepdim=True)
        deviation = (patches_BNP.var(dim=2, keepdim=True) + 1e-6).sqrt()
        return (patches_BNP - mean) / deviation, mean, deviation

    def _decode(self, visible_BTD: Tensor, keep_BK: Tensor) -> Tensor:
        """Return the prediction of every patch (B, N, P)."""
        x_BTE = self.decoder_embed(visible_BTD)
        prefix = self.encoder.prefix
        patches = self.decoder_pos_embed.shape[1] - prefix
        B, _, E = x_BTE.shape
        hidden_BNE = self.mask_token.to(x_BTE.dtype).expand(B, patches, E)
        # each visible token goes back to its own place among the mask tokens
        x_BNE = hidden_BNE.scatter(1, keep_BK[:, :, None].expand(-1, -1, E), x_BTE[:, prefix:])
        x_BTE = torch.cat([x_BTE[:, :prefix], x_BNE], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x_BTE = block(x_BTE)
        return self.decoder_pred(self.decoder_norm(x_BTE))[:, prefix:]


def patchify(image_BCHW: Tensor, patch: int) -> Tensor:
    """Return the pixels of every patch (B, N, p * p * C): patches row-major, inside a patch row, column, channel."""
    B, C, H, W = image_BCHW.shape
    parts = image_BCHW.reshape(B, C, H // patch, patch, W // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(B, (H // patch) * (W // patch), patch * patch * C)


def unpatchify(patches_BNP: Tensor, *, patch: int, grid: tuple[int, int]) -> Tensor:
    """Return the image (B, C, H, W) that `patchify` took apart."""
    B, rows, columns = patches_BNP.shape[0], *grid
    parts = patches_BNP.reshape(B, rows, columns, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    return parts.reshape(B, -1, rows * patch, columns * patch)
