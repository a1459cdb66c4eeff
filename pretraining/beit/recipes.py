"""Recipes of BEiT and of the tokenizer that it needs."""

from collections.abc import Callable
from dataclasses import replace

from backbones.config import FAMILY, ViTConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs, drops_last
from pretraining.beit.config import BEiTConfig
from pretraining.tokenizer.config import DVAEConfig


def _as_beit(vit: ViTConfig) -> ViTConfig:
    """Return the ViT with BEiT's biases, layer scale (0.1 to B) and shared table in place of positions."""
    return replace(vit, position="none", qkv_bias="qv", layer_scale=0.1, relative_position="shared_table")


def tiny_dvae() -> DVAEConfig:
    """The tokenizer of `tiny_beit`: 256 tokens of 4 px on scenes of 32 px, about two minutes on two CPU cores.

    `python tools/pretrain.py tiny_dvae --data runs/demo/scenes-pretrain/imagenet --out runs/dvae`
    """
    return DVAEConfig(
        image_size=(32, 32),
        vocabulary=256,
        downsampling=4,
        code_dim=32,
        width=32,
        kl_weight=5e-3,
        run=RunConfig(
            length=Duration(500),
            batch_size=64,
            optim=OptimConfig(base_lr=6e-3, base_batch_size=64, weight_decay=1e-4, clip_norm=1.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(20)),
            save_every=Duration(200),
        ),
    )


def small_dvae() -> DVAEConfig:
    """The tokenizer of `small_beit`, on photographs of one's own: 1,024 tokens of 4 px at 32 px.

    `python tools/pretrain.py small_dvae --data DIR --out runs/dvae`
    """
    return DVAEConfig(
        image_size=(32, 32),
        vocabulary=1024,
        downsampling=4,
        code_dim=64,
        width=48,
        kl_weight=5e-3,
        run=RunConfig(
            length=Duration(50, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=6e-3, base_batch_size=128, weight_decay=1e-4, clip_norm=1.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(1, "epochs")),
            save_every=Duration(250),
        ),
    )


def tiny_beit() -> BEiTConfig:
    """BEiT on scenes of 64 px, as many samples as `tiny` in twice its time: its encoder sees every patch.

    `python tools/pretrain.py tiny_beit --tokenizer runs/dvae/tokenizer.safetensors
    --data runs/demo/scenes-pretrain/imagenet --out runs/beit`
    """
    return BEiTConfig(
        backbone=_as_beit(FAMILY["vit_demo_patch8"]),
        token_size=(32, 32),
        masked_patches=24,
        min_block=5,
        drop_path=0.0,
        crop_scale=(0.2, 1.0),
        color_jitter=0.0,
        run=RunConfig(
            length=Duration(500),
            batch_size=64,
            optim=OptimConfig(base_lr=1.5e-3, base_batch_size=64, weight_decay=0.05, clip_norm=3.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(50)),
            save_every=Duration(200),
        ),
    )


def small_beit() -> BEiTConfig:
    """BEiT on some thousands of photographs of one's own, at 64 px, as many samples as `small`.

    `python tools/pretrain.py small_beit --tokenizer runs/dvae/tokenizer.safetensors --data DIR --out runs/beit`
    """
    return BEiTConfig(
        backbone=_as_beit(FAMILY["vit_demo_patch8"]),
        token_size=(32, 32),
        masked_patches=24,
        min_block=5,
        drop_path=0.0,
        crop_scale=(0.2, 1.0),
        run=RunConfig(
            length=Duration(100, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=1.5e-3, base_batch_size=128, weight_decay=0.05, clip_norm=3.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs")),
            save_every=Duration(250),
        ),
    )


@departs(
    "every mask covers 75 patches (BEiT's code stops short of 75 in a third of the masks)",
    "bfloat16 autocast where the device has it; unilm's code trains in float16 autocast",
    "the learning rate reaches its peak at the step after the warm-up, in unilm's code at the warm-up's last",
    drops_last("unilm's loader", epochs=800, batch_size=2048),
)
def beit_base() -> BEiTConfig:
    """BEiT ViT-B/16 on ImageNet-1K for 800 epochs: 83.2 % after fine-tuning (MAE, table 3).

    Settings of BEiT's appendix D, its clip at a gradient norm of 3, and unilm's warm-up from 0. Not run here: it needs
    ImageNet, GPUs and DALL-E's tokenizer.

    `torchrun --nproc-per-node 8 tools/pretrain.py beit_base --tokenizer dall_e --tokenizer-kind dall_e
    --trust-pickle --data imagenet --out runs/beit_base`
    """
    peak = 1.5e-3
    return BEiTConfig(
        backbone=_as_beit(FAMILY["vit_base_patch16"]),
        run=RunConfig(
            length=Duration(800, "epochs"),
            batch_size=2048,
            accumulate=4,
            optim=OptimConfig(base_lr=peak, base_batch_size=2048, weight_decay=0.05, clip_norm=3.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(10, "epochs"), final=1e-5 / peak),
            eval_every=Duration(20, "epochs"),
            save_every=Duration(1, "epochs"),
        ),
    )


BEIT_RECIPES: dict[str, Callable[[], BEiTConfig | DVAEConfig]] = {
    "tiny_dvae": tiny_dvae,
    "small_dvae": small_dvae,
    "tiny_beit": tiny_beit,
    "small_beit": small_beit,
    "beit_base": beit_base,
}
