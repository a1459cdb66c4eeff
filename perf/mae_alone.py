"""A step of our MAE on random images, at two sizes, for scripts that compare it with others or with itself."""

import torch
from harness import CPU, Step, training_step
from torch import Tensor

from backbones.config import ViTConfig
from backbones.vit import ViT
from pretraining.mae.model import MaskedAutoencoder

SMALL = ViTConfig(embed_dim=192, depth=12, num_heads=3, patch_size=8, image_size=(96, 96))
DECODER_OF = {192: (128, 4, 4), 768: (512, 8, 16)}  # by width of the encoder: width, blocks, heads


def autoencoder(a: ViTConfig) -> MaskedAutoencoder:
    """Return our model with seeded weights."""
    width, depth, heads = DECODER_OF[a.embed_dim]
    torch.manual_seed(0)
    encoder = ViT(a, train_position=False)
    return MaskedAutoencoder(
        encoder, mask_ratio=0.75, decoder_dim=width, decoder_depth=depth, decoder_heads=heads, normalise_target=True
    )


def step_of(model: MaskedAutoencoder, batch: int, *, lr: float = 1e-6) -> Step:
    """Return a step of our model, where it is."""
    image, noise = data(model.encoder.architecture, batch, next(model.parameters()).device)
    return training_step(model, lambda: model((image, noise, []))["reconstruction"], lr=lr)


def data(a: ViTConfig, batch: int, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *a.image_size, generator=generator)
    return image.to(device), torch.rand(batch, a.grid[0] * a.grid[1], generator=generator).to(device)
