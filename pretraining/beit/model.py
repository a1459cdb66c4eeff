"""Masked image modelling (BEiT, arXiv 2106.08254, section 2.3): predict the visual tokens of masked patches.

The encoder sees every place of the grid, a learned mask token at the masked ones. A linear layer on its final norm
gives logits over the tokenizer's vocabulary; the loss is their cross-entropy at the masked places alone. Parameter
names are those of BEiT's code, the encoder under `encoder.`. Axis letters: B batch, N patches, M masked patches,
D width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.normalise import Normalise
from backbones.vit import ViT
from backbones.weights.normalisation import ZERO_TO_ONE
from pretraining.tokenizer.opening import Tokenizer

Batch = tuple[Tensor, Tensor, Tensor, list[str]]  # image_BCHW, pixel_BCHW, mask_BN, ids
STD = 0.02  # of the initial weights, cut off at one std, as in BEiT's code


@dataclass(frozen=True)
class TokenPrediction:
    """What the model said of the masked patches of a batch."""

    logit_BMV: Tensor
    """In the order of the patches."""
    target_BM: Tensor
    """The tokenizer's tokens at the same patches."""

    @property
    def loss_BM(self) -> Tensor:
        """Cross-entropy in nats, in float32."""
        return F.cross_entropy(self.logit_BMV.float().transpose(1, 2), self.target_BM, reduction="none")

    @property
    def hit_BM(self) -> Tensor:
        """True where the likeliest token is the tokenizer's."""
        return self.logit_BMV.argmax(dim=2) == self.target_BM


class MaskedImageModel(nn.Module):
    """Encoder, mask token, head and loss. The tokenizer is frozen, and no part of the model's parameters."""

    def __init__(self, encoder: ViT, tokenizer: Tokenizer, *, normalise: Normalise | None = None) -> None:
        """`encoder` has a class token and a final norm. Without `normalise` images are given normalised."""
        super().__init__()
        self.normalise = normalise or nn.Identity()
        self.scale = Normalise(ZERO_TO_ONE, scaled=True)
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.architecture.embed_dim))
        self.lm_head = nn.Linear(encoder.architecture.embed_dim, tokenizer.vocabulary)
        _truncated_normal(self.mask_token)
        _truncated_normal(self.lm_head.weight)
        nn.init.zeros_(self.lm_head.bias)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"cross_entropy": scalar} of (image, pixels for the tokenizer, mask, ids)."""
        image_BCHW, pixel_BCHW, mask_BN, _ = batch
        return {"cross_entropy": self.predict(image_BCHW, pixel_BCHW, mask_BN).loss_BM.mean()}

    def predict(self, image_BCHW: Tensor, pixel_BCHW: Tensor, mask_BN: Tensor) -> TokenPrediction:
        """Return logits and tokens of the masked patches, of which every image has the same number."""
        token_BN = self.tokenizer.tokens(self.scale(pixel_BCHW)).flatten(1)
        B = mask_BN.shape[0]
        masked_BMD = self.encode(image_BCHW, mask_BN)[mask_BN].unflatten(0, (B, -1))
        return TokenPrediction(self.lm_head(masked_BMD), token_BN[mask_BN].unflatten(0, (B, -1)))

    def encode(self, image_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return every patch after the final norm, (B, N, D), the mask token having stood in for the masked ones."""
        return self.encoder.encode_masked(self.normalise(image_BCHW), mask_BN, self.mask_token)[
            :, self.encoder.num_prefix_tokens :
        ]


def initialise_encoder(encoder: ViT) -> None:
    """Set the weights as BEiT's code does: a narrow normal, the last layer of each branch less the deeper it stands.

    Norms, biases, layer scale and relative positions keep the ViT's own (one, zero, its configuration, zero).
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _truncated_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if encoder.cls_token is not None:
        _truncated_normal(encoder.cls_token)
    if encoder.pos_embed is not None and encoder.architecture.position == "learned":
        _truncated_normal(encoder.pos_embed)
    with torch.no_grad():
        for number in range(len(encoder.blocks)):
            for last in ("attn.proj", "mlp.fc2"):
                encoder.get_parameter(f"blocks.{number}.{last}.weight").div_(math.sqrt(2 * (number + 1)))


def _truncated_normal(tensor: Tensor) -> None:
    nn.init.trunc_normal_(tensor, std=STD, a=-STD, b=STD)
