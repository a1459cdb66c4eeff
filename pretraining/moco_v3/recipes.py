"""Recipes of MoCo v3."""

from collections.abc import Callable

from backbones.config import FAMILY
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs, drops_last
from pretraining.moco_v3.config import MoCoConfig

SMALL_BLUR = (0.1, 0.6)  # pixels: MoCo v3's 0.1 to 2 of 224 px, at 64 px


def tiny_moco_v3() -> MoCoConfig:
    """MoCo v3 on scenes of 64 px, as many samples as `tiny`, in about five times its minutes.

    `python tools/pretrain.py tiny_moco_v3 --data runs/demo/scenes-pretrain/imagenet --out runs/moco`
    """
    return MoCoConfig(
        backbone=FAMILY["vit_demo_patch8"],
        hidden=512,
        width=128,
        crop_scale=(0.2, 1.0),
        blur=SMALL_BLUR,
        run=RunConfig(
            length=Duration(500),
            batch_size=64,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=64, weight_decay=0.1),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(50)),
            eval_every=Duration(100),
            save_every=Duration(200),
        ),
    )


def small_moco_v3() -> MoCoConfig:
    """MoCo v3 on some thousands of photographs of one's own, at 64 px, as many samples as `small`.

    `python tools/pretrain.py small_moco_v3 --data DIR --out runs/moco`
    """
    return MoCoConfig(
        backbone=FAMILY["vit_demo_patch8"],
        hidden=1024,
        width=128,
        crop_scale=(0.2, 1.0),
        blur=SMALL_BLUR,
        run=RunConfig(
            length=Duration(100, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=128, weight_decay=0.1),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs")),
            eval_every=Duration(10, "epochs"),
            save_every=Duration(250),
        ),
    )


@departs(
    "the halves of the sin-cos position table are swapped, as in MAE's code: the same channels in another order",
    "bfloat16 autocast where the device has it; the released code trains in float16 autocast",
    drops_last("its loader", epochs=300, batch_size=4096),
)
def moco_v3_base() -> MoCoConfig:
    """ViT-B/16 on ImageNet-1K for 300 epochs: 76.7 % linear, 83.2 % after fine-tuning (MoCo v3, its repository).

    The batch of 4,096 is not accumulated, since its images are what a query tells its key from: 512 on each of eight
    GPUs. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py moco_v3_base --data imagenet --out runs/moco_v3_base`
    """
    return MoCoConfig(
        backbone=FAMILY["vit_base_patch16"],
        run=RunConfig(
            length=Duration(300, "epochs"),
            batch_size=4096,
            optim=OptimConfig(base_lr=1.5e-4, weight_decay=0.1),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(40, "epochs")),
            activation_checkpointing=True,
            eval_every=Duration(10, "epochs"),
            save_every=Duration(1, "epochs"),
        ),
    )


MOCO_RECIPES: dict[str, Callable[[], MoCoConfig]] = {
    "tiny_moco_v3": tiny_moco_v3,
    "small_moco_v3": small_moco_v3,
    "moco_v3_base": moco_v3_base,
}
