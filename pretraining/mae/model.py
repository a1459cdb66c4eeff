"""Masked autoencoder (arXiv 2111.06377, section 3): a ViT encoder on visible patches, a light decoder on all.

Parameter names are those of the official code, the encoder under `encoder.`. The paper's other choices (table 1) are a
`Variant`. Axis letters: B batch, N patches, K kept patches, T tokens, D width of the encoder, E width of the decoder,
P numbers of a patch: its pixels (p * p * C, channel last), or its PCA coefficients or the logits of its token where
those are the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.attention import Attention
from backbones.config import Table
from backbones.layers import LAYER_NORM_EPS, Block, Mlp, carried_out, initialise
from backbones.normalise import Normalise
from backbones.position import sincos_table
from backbones.vit import ViT
from pretraining.mae.config import LossOn, MaskTokenIn
from pretraining.mae.masking import keep_lowest, kept_count
from pretraining.mae.target import PCATarget, PixelTarget
from pretraining.mae.token_target import TokenTarget


@dataclass(frozen=True, kw_only=True)
class Variant:
    """In what an autoencoder departs from the paper's default."""

    mask_token: MaskTokenIn = "decoder"
    """The encoder sees visible patches alone, or a mask token at every masked one (table 1c)."""
    decoder_position: Table = "sincos"
    """The decoder's positions: a fixed table, a learned one, or none."""
    loss_on: LossOn = "masked"
    """Patches that the loss is of."""
    target: PCATarget | TokenTarget | None = None
    """What is predicted in place of pixels: PCA coefficients, or tokens (table 1d)."""


DEFAULT = Variant()


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder made of a batch."""

    prediction_BNP: Tensor
    """In the space of the target."""
    mask_BN: Tensor
    """True where the encoder did not see the patch."""
    loss_B: Tensor
    """Mean over the masked patches of each image, or over all, of the squared error or the cross-entropy."""


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss."""

    decoder_pos_embed: Tensor | None

    def __init__(
        self,
        encoder: ViT,
        *,
        mask_ratio: float,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        normalise_target: bool,
        variant: Variant = DEFAULT,
        normalise: Normalise | None = None,
    ) -> None:
        """`encoder` has a class token and a final norm, as in the paper; without `normalise` images are normalised."""
        super().__init__()
        self.normalise = normalise or nn.Identity()
        a = encoder.architecture
        self.encoder = encoder
        self.activation_checkpointing = False  # of the decoder; the encoder has a switch of its own
        self.variant = variant
        pixels = PixelTarget(width=a.patch_size**2 * a.in_chans, normalise=normalise_target)
        self.target: PixelTarget | PCATarget | TokenTarget = pixels if variant.target is None else variant.target
        self.kept = kept_count(a.grid[0] * a.grid[1], mask_ratio)
        self.decoder_embed = nn.Linear(a.embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(
            torch.zeros(1, 1, decoder_dim if variant.mask_token == "decoder" else a.embed_dim)
        )
        self.decoder_pos_embed = self._positions(decoder_dim)
        self.decoder_blocks = nn.ModuleList(
            Block(Attention(decoder_dim, num_heads=decoder_heads), Mlp(decoder_dim, hidden_dim=4 * decoder_dim))
            for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(decoder_dim, self.target.width)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_norm, self.decoder_pred):
            part.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: tuple[Tensor, Tensor, list[str]]) -> dict[str, Tensor]:
        """Return {"reconstruction": scalar} of (images, noise_BN, ids); the lowest noise stays visible."""
        image_BCHW, noise_BN, _ = batch
        return {"reconstruction": self.reconstruct(image_BCHW, noise_BN).loss_B.mean()}

    def reconstruct(self, image_BCHW: Tensor, noise_BN: Tensor) -> Reconstruction:
        """Return prediction, mask and loss of each image, given as bytes or normalised."""
        image_BCHW = self.normalise(image_BCHW)
        keep_BK, mask_BN = keep_lowest(noise_BN, self.kept)
        if self.variant.mask_token == "encoder":
            x_BTD = self.encoder.encode_masked(image_BCHW, mask_BN, self.mask_token)
            x_BTE = self.decoder_embed(x_BTD)
        else:
            x_BTE = self._filled(self.encoder.encode_visible(image_BCHW, keep_BK), keep_BK)
        prediction_BNP = self._decode(x_BTE).float()
        error_BN = self._error(prediction_BNP, image_BCHW)
        if self.variant.loss_on == "all":
            return Reconstruction(prediction_BNP, mask_BN, error_BN.mean(dim=1))
        loss_B = (error_BN * mask_BN).sum(dim=1) / mask_BN.sum(dim=1)
        return Reconstruction(prediction_BNP, mask_BN, loss_B)

    def patches(self, image_BCHW: Tensor) -> Tensor:
        """Return the true pixels of every patch in float32, (B, N, P)."""
        return patchify(image_BCHW.float(), self.encoder.architecture.patch_size)

    def _error(self, prediction_BNP: Tensor, image_BCHW: Tensor) -> Tensor:
        """Return the error of every patch, (B, N): the mean square, or the cross-entropy of tokens."""
        if isinstance(self.target, TokenTarget):
            return self.target.error(prediction_BNP, image_BCHW)
        target_BNP = self.target(self.patches(image_BCHW))
        return (prediction_BNP - target_BNP).square().mean(dim=2)

    def _positions(self, width: int) -> nn.Parameter | None:
        kind, a, num_prefix_tokens = (
            self.variant.decoder_position,
            self.encoder.architecture,
            self.encoder.num_prefix_tokens,
        )
        if kind == "none":
            return None
        if kind == "sincos":
            return nn.Parameter(sincos_table(width, a.grid, num_prefix_tokens), requires_grad=False)
        return nn.Parameter(torch.randn(1, num_prefix_tokens + a.grid[0] * a.grid[1], width) * 0.02)

    def _filled(self, visible_BTD: Tensor, keep_BK: Tensor) -> Tensor:
        """Return the visible tokens at the decoder's width, each at its own place among mask tokens."""
        x_BTE = self.decoder_embed(visible_BTD)
        num_prefix_tokens, (rows, columns) = self.encoder.num_prefix_tokens, self.encoder.architecture.grid
        B, _, E = x_BTE.shape
        masked_BNE = self.mask_token.to(x_BTE.dtype).expand(B, rows * columns, E)
        x_BNE = masked_BNE.scatter(1, keep_BK[:, :, None].expand(-1, -1, E), x_BTE[:, num_prefix_tokens:])
        return torch.cat([x_BTE[:, :num_prefix_tokens], x_BNE], dim=1)

    def _decode(self, x_BTE: Tensor) -> Tensor:
        """Return the prediction of every patch (B, N, P)."""
        if self.decoder_pos_embed is not None:
            x_BTE = x_BTE + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x_BTE = carried_out(block, x_BTE, saving=self.activation_checkpointing)
        return self.decoder_pred(self.decoder_norm(x_BTE))[:, self.encoder.num_prefix_tokens :]


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
