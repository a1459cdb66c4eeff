"""Plans of pre-training: parameters and MACs by hand, and against what the methods really compute."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones.config import ViTConfig
from engine.memory.plan import Footprint, footprint
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.plan import builder
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE

# width 16, 16 patches of 8 px, a class token, 2 blocks
D, N, PIXELS, T, DEPTH = 16, 16, 8 * 8 * 3, 17, 2
BLOCK = T * 12 * D * D + 2 * T * T * D  # queries, keys, values and projection 4, MLP 8; scores and their sum
VIT = N * PIXELS * D + DEPTH * BLOCK
BLOCK_WEIGHTS = 12 * D * D + 9 * D + 4 * D  # biases 3 + 1 + 4 + 1, two norms
VIT_WEIGHTS = PIXELS * D + D + D + T * D + DEPTH * BLOCK_WEIGHTS + 2 * D  # patches, class token, positions, last norm


def planned(config: object, *, images: int = 4, precision: str = "32-true") -> Footprint:
    return footprint(builder(config), images=images, precision=precision)


def test_dvae_by_hand(mae_config: MAEConfig) -> None:
    """2 x 2 tokens of 2 px from a vocabulary of 8, codes of 3, width 4."""
    config = DVAEConfig(
        run=mae_config.run, image_size=(4, 4), vocabulary=8, downsampling=2, code_dim=3, width=4, kl_weight=0.1
    )
    found = planned(config)
    residual = 4 * (4 * 4 * 9 + 4 * 4)  # at four places, a convolution of 3 x 3 and one of 1 x 1
    down, logits, mixture, codes, up = 4 * 3 * 4 * 16, 4 * 4 * 8, 4 * 8 * 3, 4 * 3 * 4 * 9, 4 * 4 * 3 * 16
    assert found.forward == down + 3 * residual + logits + mixture + codes + up
    block = 4 * 4 * 9 + 4 + 4 * 4 + 4
    parameters = (3 * 4 * 16 + 4) + 3 * block + (4 * 8 + 8) + 8 * 3 + (3 * 4 * 9 + 4) + (4 * 3 * 16 + 3)
    assert (found.parameters, found.trained) == (parameters, parameters)


def test_moco_v3_by_hand(mae_config: MAEConfig) -> None:
    config = MoCoConfig(backbone=mae_config.backbone, run=mae_config.run, hidden=24, width=8)
    found = planned(config)
    projector, predictor = D * 24 + 24 * 24 + 24 * 8, 8 * 24 + 24 * 8
    # two views by both branches; of a query the cosines with the four keys, in both directions
    views = 2 * 2 * (VIT + projector) + 2 * predictor + 2 * 4 * 8
    rank = 4 * D  # of the watched features, the Gram matrix: four images by four
    assert found.forward == views + rank
    branch = VIT_WEIGHTS + projector + 2 * 2 * 24
    assert found.parameters == 2 * branch + predictor + 2 * 24
    frozen = PIXELS * D + D + T * D  # the patch projection and the table of positions
    assert found.trained == branch - frozen + predictor + 2 * 24
    assert found.gradients == 4 * found.trained


def _beit(mae_config: MAEConfig, tokenizer: str | None = None) -> BEiTConfig:
    vit = replace(mae_config.backbone, position="none")
    return BEiTConfig(
        backbone=vit, run=mae_config.run, token_size=(32, 32), masked_patches=6, min_block=2, tokenizer=tokenizer
    )


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Eight tokens of 8 px."""
    header = TokenizerHeader(vocabulary=8, downsampling=8, code_dim=3, width=4, image_size=(32, 32))
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, DiscreteVAE(vocabulary=8, downsampling=8, code_dim=3, width=4), header)
    return path


# the encoder of `tokenizer` on 32 px: three halvings, 3 and then 4 channels to 4, each with a residual block
RESIDUAL = 4 * 4 * 9 + 4 * 4
ENCODER = 16 * 16 * (3 * 4 * 16 + RESIDUAL) + (8 * 8 + 4 * 4) * (4 * 4 * 16 + RESIDUAL) + 4 * 4 * (RESIDUAL + 4 * 8)


def test_beit_by_hand(mae_config: MAEConfig, tokenizer: Path) -> None:
    found = planned(_beit(mae_config, str(tokenizer)))
    assert found.forward == VIT + 6 * D * 8 + ENCODER
    # no positions; mask token, and a head with biases
    assert found.parameters == found.trained == VIT_WEIGHTS - T * D + D + D * 8 + 8
    model = DiscreteVAE(vocabulary=8, downsampling=8, code_dim=3, width=4)
    buffers = 8 + 4 * 6  # the temperature's step number, what pixels are scaled with
    assert found.frozen == 4 * sum(p.numel() for p in model.parameters()) + buffers
    stand_in = planned(_beit(mae_config))
    assert stand_in.parameters == found.parameters + (8192 - 8) * (D + 1)  # of the usual vocabulary
    assert stand_in.frozen > 100 * found.frozen


def test_beit_plans_twice_at_relative_positions(mae_config: MAEConfig, tokenizer: Path) -> None:
    """A cached index of fake tensors would be of another plan, or meet real tensors after it."""
    config = _beit(mae_config, str(tokenizer))
    config = replace(config, backbone=replace(config.backbone, relative_position="shared_table"))
    assert planned(config, images=2).forward == planned(config, images=4).forward
    real = builder(config)()
    assert torch.isfinite(real.loss(2))


def _decoder(a: ViTConfig, outputs: int) -> int:
    """MACs of a decoder of one block of width 12."""
    return T * (12 * 12 * 12 + 12 * outputs) + 2 * T * T * 12


def test_mae_targets_and_repeats_by_hand(mae_config: MAEConfig, tokenizer: Path) -> None:
    visible = 5  # four of 16 patches, and the class token
    encoder = N * PIXELS * D + DEPTH * (visible * 12 * D * D + 2 * visible * visible * D) + visible * D * 12
    pixels = planned(mae_config)
    assert pixels.forward == encoder + _decoder(mae_config.backbone, PIXELS)
    pca = planned(replace(mae_config, target="pca", pca_components=10))
    assert pca.forward == encoder + _decoder(mae_config.backbone, 10) + N * PIXELS * 10  # the target is a product
    assert pixels.parameters - pca.parameters == (PIXELS - 10) * 13
    assert pca.weights - 4 * pca.parameters == 4 * (PIXELS + 10 * PIXELS)  # mean and components are buffers
    tokens = planned(replace(mae_config, target="tokens", tokenizer=str(tokenizer)))
    assert tokens.forward == encoder + _decoder(mae_config.backbone, 8) + ENCODER
    assert tokens.frozen and not pixels.frozen
    twice = planned(replace(mae_config, repeats=2))
    assert (twice.forward, twice.training) == (2 * pixels.forward, 2 * pixels.training)
    assert twice.peak == planned(mae_config, images=8).peak
    learned = planned(replace(mae_config, position="learned"))
    assert learned.trained - pixels.trained == T * D


def test_dall_e_is_refused(mae_config: MAEConfig) -> None:
    with pytest.raises(ValueError, match="DALL-E's tokenizer is not planned"):
        builder(replace(_beit(mae_config), tokenizer_kind="dall_e"))
