"""Pre-training recipes on fake tensors: one function for every type of configuration.

A tokenizer is built as the run's file says it is. Without a file one of this project stands in, with the vocabulary of
DALL-E's at the token's side that the ViT's grid asks for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from engine.memory.plan import Plannable
from pretraining.beit.config import BEiTConfig
from pretraining.beit.model import MaskedImageModel, TokenPrediction
from pretraining.mae.config import MAEConfig
from pretraining.mae.target import PCATarget
from pretraining.mae.task import autoencoder
from pretraining.mae.token_target import TokenTarget
from pretraining.moco_v3.config import MoCoConfig
from pretraining.moco_v3.model import MoCoV3
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import OwnTokenizer, TokenizerHeader, read_tokenizer
from pretraining.tokenizer.model import DiscreteVAE
from pretraining.tokenizer.opening import check_grid

ALONE = (
    "keys are of one GPU's images; micro-batches change the loss, as an image is told from those of its micro-batch "
    "alone"
)


def builder(config: Any) -> Callable[[], Plannable]:
    """Return what builds the model and its loss on images of the recipe's size, to be called where tensors are fake.

    Reads the tokenizer's file where one is named; raises what reading raises, and ValueError for DALL-E's, which is
    not built from numbers.
    """
    if isinstance(config, BEiTConfig):
        header = _header(config, side=config.token_size[0] // config.backbone.grid[0])
        check_grid(_tokenizer(header), token_size=config.token_size, grid=config.backbone.grid)
        return lambda: _beit(config, header)
    if isinstance(config, DVAEConfig):
        return lambda: _dvae(config)
    if isinstance(config, MoCoConfig):
        return lambda: _moco_v3(config)
    assert isinstance(config, MAEConfig)
    tokens = _header(config, side=DVAEConfig.downsampling) if config.target == "tokens" else None
    return lambda: _mae(config, tokens)


def _mae(config: MAEConfig, tokens: TokenizerHeader | None) -> Plannable:
    a = config.encoder
    target: PCATarget | TokenTarget | None = None
    tokenizer = None if tokens is None else _tokenizer(tokens)
    if tokenizer is not None:
        target = TokenTarget(tokenizer, Normalisation(), a.grid)
    if config.target == "pca":
        pixels = a.patch_size**2 * a.in_chans
        target = PCATarget(torch.zeros(pixels), torch.zeros(config.pca_components, pixels))
    model = autoencoder(config, ViT(a, train_position=a.position == "learned"), target)

    def loss(images: int) -> Tensor:
        crops = images * config.repeats
        noise_BN = torch.zeros(crops, a.grid[0] * a.grid[1])
        return _total(model((torch.zeros(crops, a.in_chans, *a.image_size), noise_BN, [])))

    several = f"an image counts with its {config.repeats} crops" if config.repeats > 1 else ""
    return Plannable(
        model=model,
        run=config.run,
        loss=loss,
        frozen=None if tokenizer is None else tokenizer.model,
        simplified="; ".join(filter(None, [several, _stand_in(config, tokens)])),
    )


def _beit(config: BEiTConfig, header: TokenizerHeader) -> Plannable:
    a = config.backbone
    tokenizer = _tokenizer(header)
    model = MaskedImageModel(ViT(a, drop_path=config.drop_path), tokenizer)

    def loss(images: int) -> Tensor:
        pixel_BCHW = torch.zeros(images, 3, *config.token_size)
        mask_BN = torch.zeros(images, a.grid[0] * a.grid[1], dtype=torch.bool)
        token_BN = tokenizer.tokens(pixel_BCHW).flatten(1)
        every_BND = model.encode(torch.zeros(images, a.in_chans, *a.image_size), mask_BN)
        # a mask picks as many rows as its values say, which fake tensors have none of; so rows by their numbers
        row, place = (torch.zeros(images * config.masked_patches, dtype=torch.long) for _ in range(2))
        masked_BMD = every_BND[row, place].unflatten(0, (images, -1))
        target_BM = token_BN[row, place].unflatten(0, (images, -1))
        return TokenPrediction(model.lm_head(masked_BMD), target_BM).loss_BM.mean()

    return Plannable(
        model=model, run=config.run, loss=loss, frozen=tokenizer.model, simplified=_stand_in(config, header)
    )


def _dvae(config: DVAEConfig) -> Plannable:
    model = DiscreteVAE(
        vocabulary=config.vocabulary,
        downsampling=config.downsampling,
        code_dim=config.code_dim,
        width=config.width,
        kl_weight=config.kl_weight,
    )
    return Plannable(
        model=model,
        run=config.run,
        loss=lambda images: _total(model((torch.zeros(images, 3, *config.image_size), []))),
    )


def _moco_v3(config: MoCoConfig) -> Plannable:
    a = config.backbone
    model = MoCoV3(
        ViT(a, train_position=a.position == "learned"),
        hidden=config.hidden,
        width=config.width,
        temperature=config.temperature,
        freeze_patches=config.freeze_patches,
    )

    def loss(images: int) -> Tensor:
        first, second = (torch.zeros(images, a.in_chans, *a.image_size) for _ in range(2))
        return _total(model((first, second, [])))

    return Plannable(model=model, run=config.run, loss=loss, simplified=ALONE)


def _header(config: BEiTConfig | MAEConfig, *, side: int) -> TokenizerHeader:
    """Return what the tokenizer is: its file's header, or that of the one that stands in, of `side` pixels a token."""
    if config.tokenizer_kind != "own":
        raise ValueError(
            "DALL-E's tokenizer is not planned; leave its flags away, and one of this project with as many tokens "
            "stands in."
        )
    if config.tokenizer is not None:
        return read_tokenizer(Path(config.tokenizer)).header
    grid = config.backbone.grid
    return TokenizerHeader(
        vocabulary=DVAEConfig.vocabulary,
        downsampling=side,
        code_dim=DVAEConfig.code_dim,
        width=DVAEConfig.width,
        image_size=(side * grid[0], side * grid[1]),
    )


class _Placed(OwnTokenizer):
    """A tokenizer that stays on the device where it is: fake weights cannot be moved."""

    @torch.no_grad()
    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        """Return the likeliest tokens (B, h, w)."""
        return self.model.tokens(pixel_BCHW)


def _tokenizer(header: TokenizerHeader) -> OwnTokenizer:
    model = DiscreteVAE(
        vocabulary=header.vocabulary,
        downsampling=header.downsampling,
        code_dim=header.code_dim,
        width=header.width,
    )
    return _Placed(model, header, sha256={})


def _stand_in(config: BEiTConfig | MAEConfig, header: TokenizerHeader | None) -> str:
    if header is None or config.tokenizer is not None:
        return ""
    return (
        f"a tokenizer of this project stands in, {header.vocabulary:,} tokens of {header.downsampling} px, width "
        f"{header.width} (--tokenizer FILE plans with yours; DALL-E's encoder is larger)"
    )


def _total(losses: dict[str, Tensor]) -> Tensor:
    """Return the sum of what needs a gradient; the rest is watched alone."""
    return torch.stack([value for value in losses.values() if value.requires_grad]).sum()
