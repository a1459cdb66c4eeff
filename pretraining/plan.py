"""MAE on fake tensors."""

import torch
from torch import Tensor

from backbones.vit import ViT
from engine.plan import Plannable
from pretraining.config import MAEConfig
from pretraining.task import autoencoder


def plannable(config: MAEConfig) -> Plannable:
    """Return the autoencoder and its loss on images of the recipe's size."""
    a = config.encoder
    model = autoencoder(config, ViT(a, train_position=False))

    def loss(images: int) -> Tensor:
        noise = torch.zeros(images, a.grid[0] * a.grid[1])
        return torch.stack(list(model((torch.zeros(images, a.in_chans, *a.image_size), noise, [])).values())).sum()

    return Plannable(model=model, run=config.run, loss=loss)
