"""A discrete VAE: images as a grid of tokens from a learned vocabulary (DALL-E, arXiv 2102.12092, section 2.1).

The encoder gives logits over the vocabulary at every place, a Gumbel-softmax sample (arXiv 1611.01144) mixes the
vectors of the codebook by them, the decoder makes pixels of the mixture. The temperature falls as training goes on, so
that mixtures become choices. Departures from DALL-E: a smaller network, squared error in place of its logit-Laplace
likelihood, a constant weight of the divergence from the uniform prior. Axis letters: B batch, V vocabulary, E width of
a code, h x w tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.normalise import Normalise
from backbones.weights.normalisation import ZERO_TO_ONE
from pretraining.tokenizer.config import check_downsampling, check_size

Batch = tuple[Tensor, list[str]]  # pixel_BCHW, bytes or from 0 to 1, image ids


def temperature(passed: Tensor, *, over: int, first: float, last: float) -> Tensor:
    """Return the temperature after `passed` forward passes: half a cosine from `first` to `last` at `over` passes."""
    share = (passed / over).clamp(max=1.0)
    return last + (first - last) * 0.5 * (1 + torch.cos(math.pi * share))


def uniform_divergence(logit_BVhw: Tensor) -> Tensor:
    """Return the mean over places of KL(softmax(logits) || uniform) in nats: log V minus the entropy."""
    log_q_BVhw = logit_BVhw.log_softmax(dim=1)
    entropy_Bhw = -(log_q_BVhw.exp() * log_q_BVhw).sum(dim=1)
    return math.log(logit_BVhw.shape[1]) - entropy_Bhw.mean()


class ResidualBlock(nn.Module):
    """Two convolutions on a branch beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class DiscreteVAE(nn.Module):
    """Encoder, codebook, decoder and the two terms of the loss.

    `passed`, a buffer, counts the forward passes of training: it is what the temperature follows, and a checkpoint
    holds it, so that a resumed run goes on at the same temperature.
    """

    passed: Tensor

    def __init__(
        self,
        *,
        vocabulary: int,
        downsampling: int,
        code_dim: int,
        width: int,
        kl_weight: float = 0.0,
        temperatures: tuple[float, float] = (1.0, 1 / 16),
        anneal_passes: int = 1,
    ) -> None:
        """`downsampling`, a power of two, is the side of a token in pixels. Raises ValueError for other numbers."""
        super().__init__()
        self.scale = Normalise(ZERO_TO_ONE)
        levels = check_downsampling(downsampling)
        self.vocabulary, self.downsampling = vocabulary, downsampling
        self.kl_weight, self.temperatures, self.anneal_passes = kl_weight, temperatures, anneal_passes
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for level in range(levels):
            down += [nn.Conv2d(width if level else 3, width, 4, stride=2, padding=1), ResidualBlock(width)]
            up += [ResidualBlock(width), nn.ConvTranspose2d(width, width if level < levels - 1 else 3, 4, 2, 1)]
        self.encoder = nn.Sequential(*down, ResidualBlock(width), nn.ReLU(), nn.Conv2d(width, vocabulary, 1))
        self.codebook = nn.Parameter(torch.randn(vocabulary, code_dim))
        self.decoder = nn.Sequential(nn.Conv2d(code_dim, width, 3, padding=1), *up)
        self.register_buffer("passed", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"reconstruction", "kl"} of (pixels, ids), the second already weighted."""
        target_BCHW = mapped(self.scale(batch[0]))
        first, last = self.temperatures
        tau = temperature(self.passed, over=self.anneal_passes, first=first, last=last)
        if self.training:
            self.passed += 1
        logit_BVhw = self.encoder(target_BCHW).float()  # float32: bfloat16 noise is as large as a low temperature
        weight_BVhw = F.gumbel_softmax(logit_BVhw, tau=tau, dim=1)  # type: ignore[arg-type]  # a tensor stays on device
        made_BCHW = self.decoder(torch.einsum("bvhw,ve->behw", weight_BVhw, self.codebook))
        return {
            "reconstruction": F.mse_loss(made_BCHW.float(), target_BCHW),
            "kl": self.kl_weight * uniform_divergence(logit_BVhw),
        }

    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        """Return the likeliest tokens (B, h, w) of pixels from 0 to 1, in float32 whatever autocast says.

        Raises ValueError for an image that is no multiple of a token.
        """
        height, width = pixel_BCHW.shape[-2:]
        check_size((height, width), self.downsampling)
        with torch.autocast(pixel_BCHW.device.type, enabled=False):
            return self.encoder(mapped(pixel_BCHW)).argmax(dim=1)

    def decode(self, token_Bhw: Tensor) -> Tensor:
        """Return the pixels (B, 3, H, W), 0 to 1, in float32."""
        code_BEhw = self.codebook[token_Bhw].permute(0, 3, 1, 2)
        with torch.autocast(token_Bhw.device.type, enabled=False):
            return (self.decoder(code_BEhw) * 0.5 + 0.5).clamp(0, 1)


def mapped(pixel_BCHW: Tensor) -> Tensor:
    """Return pixels from 0 to 1 as the encoder takes them, from -1 to 1."""
    return pixel_BCHW.float() * 2 - 1
