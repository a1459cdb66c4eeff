"""Visual tokens as MAE's target (table 1d): the decoder says which token of a tokenizer stands at each patch.

The tokenizer sees the crop that the encoder sees, resized so that it makes one token of each patch; BEiT resizes the
same part of the file instead. Axis letters: B batch, C channels, N patches, V vocabulary, h x w grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import Grid
from backbones.weights.normalisation import Normalisation
from pretraining.tokenizer.opening import Tokenizer


class TokenTarget(nn.Module):
    """Cross-entropy with the tokens of a frozen tokenizer, which is no part of the model's parameters."""

    def __init__(self, tokenizer: Tokenizer, normalisation: Normalisation, grid: Grid) -> None:
        """`normalisation` is that of the images that the model is given, `grid` that of its patches."""
        super().__init__()
        self.width, self.normalise = tokenizer.vocabulary, False
        self.grid, self.normalisation = grid, normalisation
        object.__setattr__(self, "tokenizer", tokenizer)  # a module would be saved with the model
        self.tokenizer: Tokenizer

    def tokens(self, image_BCHW: Tensor) -> Tensor:
        """Return the tokenizer's token of each patch, (B, N), of normalised images."""
        size = [side * self.tokenizer.downsampling for side in self.grid]
        mean, std = self._constants(image_BCHW)
        pixel_BCHW = (image_BCHW.float() * std + mean).clamp(0, 1)
        if list(pixel_BCHW.shape[2:]) != size:
            pixel_BCHW = F.interpolate(pixel_BCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            return self.tokenizer.tokens(pixel_BCHW).flatten(1)

    def error(self, logit_BNV: Tensor, image_BCHW: Tensor) -> Tensor:
        """Return the cross-entropy of each patch in nats, (B, N)."""
        return F.cross_entropy(logit_BNV.float().transpose(1, 2), self.tokens(image_BCHW), reduction="none")

    def picture(self, logit_BNV: Tensor, image_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the normalised image (B, C, H, W) that the tokenizer decodes.

        Its tokens are the likeliest at masked patches and the true ones at the others: a decoder looks at neighbours.
        """
        token_BN = torch.where(mask_BN, logit_BNV.argmax(dim=2), self.tokens(image_BCHW))
        pixel_BCHW = self.tokenizer.decode(token_BN.unflatten(1, self.grid)).float()
        if pixel_BCHW.shape[2:] != image_BCHW.shape[2:]:
            pixel_BCHW = F.interpolate(pixel_BCHW, image_BCHW.shape[2:], mode="bicubic", antialias=True)
        mean, std = self._constants(image_BCHW)
        return (pixel_BCHW.clamp(0, 1) - mean) / std

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(values, device=like.device).view(-1, 1, 1)
            for values in (self.normalisation.mean, self.normalisation.std)
        )
        return mean, std
