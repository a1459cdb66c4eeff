"""What a record says of the cost of a pre-training: MACs with and without a backward pass, samples seen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config import Duration
from engine.cost import count_flops
from engine.records.record import RECORD_NAME, read_record
from engine.training.loop import fit
from engine.training.resume import checkpoints
from pretraining.beit import task as beit_task
from pretraining.beit.config import BEiTConfig
from pretraining.mae import task
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3 import task as moco_task
from pretraining.moco_v3.config import MoCoConfig
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE

HEADER = TokenizerHeader(vocabulary=12, downsampling=4, code_dim=5, width=6, image_size=(16, 16))


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, DiscreteVAE(vocabulary=12, downsampling=4, code_dim=5, width=6), HEADER)
    return str(path)


def tokenizer_flops(size: int) -> int:
    """MACs of the encoder of the tokenizer above on `size` x `size` pixels, convolution by convolution."""
    half, quarter = (size // 2) ** 2, (size // 4) ** 2
    block = 6 * 6 * 9 + 6 * 6
    return half * (3 * 6 * 16 + block) + quarter * (6 * 6 * 16 + 2 * block + 6 * 12)


def test_the_momentum_encoder_has_no_backward_pass(mae_config: MAEConfig, data: Path) -> None:
    config = MoCoConfig(backbone=mae_config.backbone, run=mae_config.run, hidden=24, width=8)
    made = moco_task.build_task(config, data=data, init=None)
    branch = count_flops(made.model.base, torch.zeros(1, 3, 32, 32))
    predictor = count_flops(made.model.predictor, torch.zeros(1, 8))
    assert made.facts.frozen_flops_per_image == 2 * branch
    assert made.facts.flops_per_image == 2 * (branch + predictor) + 2 * 8  # two views, and two cosines of 8 numbers
    assert made.facts.views_per_image == 1  # both views are one sample


def test_the_tokenizer_of_beit_is_frozen_and_its_head_is_trained(
    mae_config: MAEConfig, data: Path, tokenizer: str
) -> None:
    config = BEiTConfig(
        backbone=mae_config.backbone,
        run=mae_config.run,
        tokenizer=tokenizer,
        token_size=(16, 16),
        masked_patches=6,
        min_block=2,
    )
    made = beit_task.build_task(config, data=data, init=None)
    encoder = count_flops(made.model.encoder, torch.zeros(1, 3, 32, 32))
    assert made.facts.frozen_flops_per_image == tokenizer_flops(16)
    assert made.facts.flops_per_image == encoder + 6 * 16 * 12  # six masked patches, 16 wide, twelve tokens


def test_the_tokenizer_of_a_target_is_frozen(mae_config: MAEConfig, data: Path, tokenizer: str) -> None:
    pixels = task.build_task(mae_config, data=data, init=None).facts
    assert pixels.frozen_flops_per_image == 0
    tokens = task.build_task(replace(mae_config, target="tokens", tokenizer=tokenizer), data=data, init=None).facts
    assert tokens.frozen_flops_per_image == tokenizer_flops(16)
    assert pixels.flops_per_image and tokens.flops_per_image
    # at 16 patches and the class token the last layer, 12 wide, says one of 12 tokens in place of 8 x 8 x 3 pixels
    assert tokens.flops_per_image - pixels.flops_per_image == 17 * 12 * (12 - 8 * 8 * 3)


def test_crops_of_an_image_are_samples_and_leave_the_order_alone(
    mae_config: MAEConfig, data: Path, tmp_path: Path
) -> None:
    run = replace(mae_config.run, length=Duration(4), save_every=Duration(2), keep_last=3, precision="32-true")
    config, out = replace(mae_config, repeats=3, run=run), tmp_path / "run"

    def train() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        record = fit(task.build_task(config, data=data, init=None), config, recipe="tiny", out=out, resume=True)
        assert (record.steps, record.samples_seen) == (4, 4 * 4 * 3)
        weights: dict[str, torch.Tensor] = torch.load(checkpoints(out)[-1], weights_only=True)["model"]
        return weights

    whole = train()
    checkpoints(out)[-1].unlink()  # back to step 2
    again = train()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    cost = read_record(out).cost
    assert cost.flops_per_image and cost.training_flops == 3 * cost.flops_per_image
    assert cost.images_per_second == pytest.approx(48 / cost.train_seconds)


def test_a_record_without_the_frozen_part_is_read(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    fit(task.build_task(mae_config, data=data, init=None), mae_config, recipe="tiny", out=tmp_path / "run")
    file = tmp_path / "run" / RECORD_NAME
    values = json.loads(file.read_text())
    assert values["cost"].pop("frozen_flops_per_image") == 0
    del values["sha256"]  # records of then had none
    file.write_text(json.dumps(values))
    cost = read_record(file).cost
    assert cost.frozen_flops_per_image == 0
    assert replace(cost, frozen_flops_per_image=5).training_flops == 3 * values["cost"]["flops_per_image"] + 5
    assert replace(cost, flops_per_image=None).training_flops is None
