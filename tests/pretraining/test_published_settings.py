"""Recipes of pre-training hold the published numbers: MAE's table 8, BEiT's appendix D, MoCo v3's commands."""

import math

import pytest

from engine.config import Duration
from engine.training.schedule import lr_factor
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.recipes import RECIPES

IMAGENET = 1_281_167


def rate(config: MAEConfig | BEiTConfig | MoCoConfig, passes: float) -> float:
    """The learning rate after so many passes over ImageNet, at the recipe's batch."""
    run = config.run
    sizes = {"batch_size": run.batch_size, "dataset_size": IMAGENET}
    total, warmup = run.length.steps(**sizes), run.schedule.warmup.steps(**sizes)
    step = Duration(passes, "epochs").steps(**sizes)
    return run.optim.lr(run.batch_size) * lr_factor(run.schedule, step, total_steps=total, warmup_steps=warmup)


def half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize(
    ("name", "epochs", "width", "depth", "heads", "patch"),
    [
        ("mae_base", 1600, 768, 12, 12, 16),
        ("mae_large", 1600, 1024, 24, 16, 16),
        ("mae_huge", 1600, 1280, 32, 16, 14),
        ("mae_base_800", 800, 768, 12, 12, 16),
        ("mae_large_800", 800, 1024, 24, 16, 16),
        ("mae_huge_800", 800, 1280, 32, 16, 14),
    ],
)
def test_mae(name: str, epochs: int, width: int, depth: int, heads: int, patch: int) -> None:
    config = RECIPES[name]()
    assert isinstance(config, MAEConfig)
    vit, run, optim = config.backbone, config.run, config.run.optim
    assert (vit.embed_dim, vit.depth, vit.num_heads, vit.patch_size) == (width, depth, heads, patch)
    assert (vit.image_size, vit.position) == ((224, 224), "sincos")
    assert (run.length, run.batch_size, run.ema_decay) == (Duration(epochs, "epochs"), 4096, None)
    assert (optim.kind, optim.betas, optim.weight_decay, optim.clip_norm) == ("adamw", (0.9, 0.95), 0.05, None)
    # 1.5e-4 * 4096 / 256, after 40 epochs from 0 (steps round the epochs up)
    assert rate(config, 0) == 0
    assert rate(config, 20) == pytest.approx(1.2e-3, rel=1e-3)
    assert rate(config, 40) == pytest.approx(2.4e-3)
    assert rate(config, epochs / 2) == pytest.approx(2.4e-3 * half_cosine((epochs / 2 - 40) / (epochs - 40)), rel=1e-3)
    assert rate(config, epochs) == 0
    assert (config.mask_ratio, config.sampling, config.loss_on, config.target) == (
        0.75,
        "random",
        "masked",
        "normalised",
    )
    assert (config.decoder_dim, config.decoder_depth, config.decoder_heads) == (512, 8, 16)
    assert (config.augmentation, config.crop_scale, config.flip, config.repeats) == ("random_crop", (0.2, 1.0), True, 1)


def test_beit() -> None:
    config = RECIPES["beit_base"]()
    assert isinstance(config, BEiTConfig)
    vit, run, optim = config.backbone, config.run, config.run.optim
    assert (vit.embed_dim, vit.depth, vit.num_heads, vit.patch_size) == (768, 12, 12, 16)
    assert (vit.position, vit.relative_position, vit.qkv_bias, vit.layer_scale) == ("none", "shared_table", "qv", 0.1)
    assert (run.length, run.batch_size) == (Duration(800, "epochs"), 2048)
    assert (optim.kind, optim.betas, optim.weight_decay, optim.clip_norm) == ("adamw", (0.9, 0.999), 0.05, 3.0)
    # from 0 (the default of unilm's cosine_scheduler, whose caller passes none) to 1.5e-3 in 10 epochs, then to 1e-5
    assert rate(config, 0) == 0
    assert rate(config, 10) == pytest.approx(1.5e-3)
    assert rate(config, 800) == pytest.approx(1e-5)
    assert (config.masked_patches, config.min_block, config.min_aspect) == (75, 16, 0.3)
    assert (config.token_size, config.drop_path) == ((112, 112), 0.1)
    assert (config.crop_scale, config.flip, config.color_jitter) == ((0.08, 1.0), True, 0.4)


def test_moco_v3() -> None:
    config = RECIPES["moco_v3_base"]()
    assert isinstance(config, MoCoConfig)
    vit, run, optim = config.backbone, config.run, config.run.optim
    assert (vit.embed_dim, vit.depth, vit.num_heads, vit.patch_size, vit.position) == (768, 12, 12, 16, "sincos")
    assert (run.length, run.batch_size, run.accumulate) == (Duration(300, "epochs"), 4096, 1)
    assert (optim.kind, optim.betas, optim.weight_decay, optim.clip_norm) == ("adamw", (0.9, 0.999), 0.1, None)
    assert rate(config, 0) == 0
    assert rate(config, 40) == pytest.approx(2.4e-3)
    assert rate(config, 170) == pytest.approx(1.2e-3, rel=1e-3)  # half of the way from 40 to 300
    assert rate(config, 300) == 0
    assert (config.hidden, config.width, config.temperature, config.momentum) == (4096, 256, 0.2, 0.99)
    assert (config.freeze_patches, config.changes) == (True, "byol")
    assert (config.crop_scale, config.blur) == ((0.08, 1.0), (0.1, 2.0))


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("mae_base", "499,200", "500,456"),  # 312 steps of 4,096 images in each of 1,600 epochs
        ("mae_large_800", "249,600", "250,228"),
        ("beit_base", "500,000", "500,456"),  # 625 steps of 2,048 in each of 800
        ("moco_v3_base", "93,600", "93,836"),
    ],
)
def test_what_the_released_code_does_otherwise_is_stated(name: str, theirs: str, ours: str) -> None:
    said = " ".join(RECIPES[name].departs)  # type: ignore[attr-defined]
    assert f"{theirs} steps" in said and f"these are {ours}" in said and "trains in float16 autocast" in said
    run = RECIPES[name]().run
    assert run.length.steps(batch_size=run.batch_size, dataset_size=IMAGENET) == int(ours.replace(",", ""))
