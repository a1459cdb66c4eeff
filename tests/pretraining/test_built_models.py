"""What a task builds is what its configuration and the method's own code say: initial weights, targets, drop path."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pretraining.beit.task
import pretraining.mae.task
import pretraining.moco_v3.task
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig, TargetKind
from pretraining.moco_v3.config import MoCoConfig
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def largest(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max())


def test_mae_starts_as_its_code_does(mae_config: MAEConfig, data: Path) -> None:
    config = replace(mae_config, decoder_dim=96, decoder_heads=3)
    model = pretraining.mae.task.build_task(config, data=data, init=None).model
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert {"decoder_embed", "decoder_pred", "decoder_blocks.0.mlp.fc2", "encoder.blocks.1.attn.qkv"} <= set(linear)
    for name, layer in linear.items():  # Xavier uniform, zero biases
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.95 * bound < largest(layer.weight) <= bound, name
        assert not layer.bias.any(), name
    assert float(model.mask_token.detach().std()) == pytest.approx(0.02, rel=0.3)  # of 96 numbers: four deviations
    assert not model.decoder_pos_embed[:, 0].any()


@pytest.mark.parametrize(("target", "normalised"), [("pixels", False), ("normalised", True)])
def test_mae_predicts_what_was_asked(target: TargetKind, normalised: bool, mae_config: MAEConfig, data: Path) -> None:
    model = pretraining.mae.task.build_task(replace(mae_config, target=target), data=data, init=None).model
    patches_BNP = torch.randn(1, 16, 192) * 3 + 1
    made = model.target(patches_BNP)
    assert torch.allclose(made.var(dim=2), torch.ones(1, 16), atol=1e-4) == normalised
    assert torch.equal(made, patches_BNP) != normalised


def test_beit_starts_as_its_code_does(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    header = TokenizerHeader(vocabulary=50, downsampling=4, code_dim=5, width=6, image_size=(16, 16))
    tokenizer = DiscreteVAE(vocabulary=50, downsampling=4, code_dim=5, width=6)
    write_tokenizer(tmp_path / "tokenizer.safetensors", tokenizer, header)
    backbone = replace(
        mae_config.backbone, position="none", qkv_bias="qv", layer_scale=0.1, relative_position="shared_table"
    )
    config = BEiTConfig(
        backbone=backbone,
        run=mae_config.run,
        tokenizer=str(tmp_path / "tokenizer.safetensors"),
        token_size=(16, 16),
        masked_patches=6,
        min_block=2,
        drop_path=0.3,
    )
    model = pretraining.beit.task.build_task(config, data=data, init=None).model
    # a normal of 0.02, cut off at one std
    encoder = model.encoder
    for tensor in (model.mask_token, model.lm_head.weight, encoder.cls_token, encoder.blocks[0].attn.qkv.weight):
        assert 0.01 < largest(tensor) <= 0.02
    assert float(model.lm_head.weight.detach().std()) == pytest.approx(0.54 * 0.02, rel=0.1)
    assert not model.lm_head.bias.any()
    # the deeper, the smaller: 1 / sqrt(2 * block)
    assert [largest(block.mlp.fc2.weight) * math.sqrt(2 * n) for n, block in enumerate(encoder.blocks, 1)] == (
        pytest.approx([0.02, 0.02], rel=0.02)
    )
    assert isinstance(encoder.blocks[0].drop_path, nn.Identity)
    assert encoder.blocks[1].drop_path.drop_prob == 0.3


def test_moco_v3_starts_as_its_code_does(mae_config: MAEConfig, data: Path) -> None:
    config = MoCoConfig(backbone=mae_config.backbone, run=mae_config.run, hidden=24, width=8)
    model = pretraining.moco_v3.task.build_task(config, data=data, init=None).model
    encoder = model.base.encoder
    assert 0 < largest(encoder.cls_token) < 1e-5
    assert not encoder.patch_embed.proj.bias.any()
    for block in encoder.blocks:
        assert 0.95 * math.sqrt(6 / 32) < largest(block.attn.qkv.weight) <= math.sqrt(6 / 32)  # each 16 by 16
    for name, value in model.momentum.state_dict().items():
        assert torch.equal(value, model.base.state_dict()[name]), name
