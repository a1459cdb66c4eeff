"""Recipes of pre-training: MAE's and the supervised baseline's here, those of other methods in files of their own."""

from collections.abc import Callable
from dataclasses import replace

from backbones.config import FAMILY
from classification.config import Augmentation, ClassificationConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig, TaskConfig
from engine.recipe import departs, drops_last
from pretraining.beit.recipes import BEIT_RECIPES
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.recipes import MOCO_RECIPES

TINY_LENGTH = Duration(500)  # both arms see the same number of images; the demo overrides it
TINY_BATCH = 64
FROM_LABELS = (
    "the sin-cos positions stay fixed, as in MAE's pre-training",
    "a head of layer norm and linear layer on the mean of the patch tokens",
    "RandAugment is timm's rand-m9-mstd0.5; the paper states (9, 0.5)",
    "bfloat16 autocast where the device has it; the paper's code had no explicit mixed precision",
)
AUTOCAST = "bfloat16 autocast where the device has it; the released code trains in float16 autocast"
_in_what_1600_departs = departs(AUTOCAST, drops_last("MAE's loader", epochs=1600, batch_size=4096))
_in_what_800_departs = departs(AUTOCAST, drops_last("MAE's loader", epochs=800, batch_size=4096))


def tiny() -> MAEConfig:
    """MAE on scenes of 64 px, about two minutes on two CPU cores. The demo's MAE arm is longer, in smaller batches.

    `python tools/pretrain.py tiny --data runs/demo/scenes-pretrain/imagenet --out runs/mae`
    """
    return MAEConfig(
        backbone=FAMILY["vit_demo_patch8"],
        decoder_dim=96,
        decoder_depth=2,
        decoder_heads=3,
        run=RunConfig(
            length=TINY_LENGTH,
            batch_size=TINY_BATCH,
            optim=OptimConfig(base_lr=1.5e-3, base_batch_size=TINY_BATCH, betas=(0.9, 0.95), weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(50)),
            save_every=Duration(200),
        ),
    )


def tiny_supervised() -> ClassificationConfig:
    """The same ViT from labels on the same scenes and as many samples. The demo's supervised arm has smaller batches.

    `python tools/pretrain.py tiny_supervised --data runs/demo/scenes-pretrain/imagenet --out runs/supervised`
    """
    return ClassificationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        augment=Augmentation(crop_scale=(0.35, 1.0), label_smoothing=0.1),
        drop_path=0.1,
        head_std=0.02,
        run=RunConfig(
            length=TINY_LENGTH,
            batch_size=TINY_BATCH,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=TINY_BATCH, betas=(0.9, 0.95), weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(50)),
            save_every=Duration(200),
        ),
    )


def tiny_half() -> MAEConfig:
    """The recipe `tiny` with a ViT of half the width, 0.7 M parameters: the small end of the scaling study.

    `python tools/pretrain.py tiny_half --data DIR --out runs/mae`
    """
    return replace(tiny(), backbone=FAMILY["vit_demo_tiny_patch8"])


def tiny_double() -> MAEConfig:
    """The recipe `tiny` with a ViT of twice the width, 10.8 M parameters: the large end of the scaling study.

    `python tools/pretrain.py tiny_double --data DIR --out runs/mae`
    """
    return replace(tiny(), backbone=FAMILY["vit_demo_base_patch8"])


def tiny_half_supervised() -> ClassificationConfig:
    """The recipe `tiny_supervised` with a ViT of half the width.

    `python tools/pretrain.py tiny_half_supervised --data DIR --out runs/supervised`
    """
    return replace(tiny_supervised(), backbone=FAMILY["vit_demo_tiny_patch8"])


def tiny_double_supervised() -> ClassificationConfig:
    """The recipe `tiny_supervised` with a ViT of twice the width.

    `python tools/pretrain.py tiny_double_supervised --data DIR --out runs/supervised`
    """
    return replace(tiny_supervised(), backbone=FAMILY["vit_demo_base_patch8"])


def small() -> MAEConfig:
    """MAE on some thousands of photographs of one's own, at 64 px: hours on a laptop, minutes on a GPU.

    `python tools/pretrain.py small --data DIR --out runs/mae`
    """
    return MAEConfig(
        backbone=FAMILY["vit_demo_patch8"],
        decoder_dim=128,
        decoder_depth=2,
        decoder_heads=4,
        run=RunConfig(
            length=Duration(100, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=1.5e-3, base_batch_size=128, betas=(0.9, 0.95), weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs")),
            save_every=Duration(250),
        ),
    )


def small_supervised() -> ClassificationConfig:
    """The same ViT from labels on the same photographs and as many samples: the other arm of a comparison with `small`.

    `python tools/pretrain.py small_supervised --data DIR --out runs/supervised`, where DIR has a folder per class.
    """
    return ClassificationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        augment=Augmentation(crop_scale=(0.35, 1.0), label_smoothing=0.1),
        drop_path=0.1,
        head_std=0.02,
        run=RunConfig(
            length=Duration(100, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=128, betas=(0.9, 0.95), weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs")),
            save_every=Duration(250),
        ),
    )


@_in_what_1600_departs
def mae_base() -> MAEConfig:
    """ViT-B/16 on ImageNet-1K for 1,600 epochs: 83.6 % after fine-tuning (MAE, table 3; settings of table 8).

    With target `pixels` 83.3 % (table 7). Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_base --data imagenet --out runs/mae_base`
    """
    return _published("vit_base_patch16", epochs=1600, accumulate=8)


@_in_what_1600_departs
def mae_large() -> MAEConfig:
    """ViT-L/16 on ImageNet-1K for 1,600 epochs: 85.9 % after fine-tuning (MAE, table 3; settings of table 8).

    With target `pixels` 85.1 % (table 7). Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_large --data imagenet --out runs/mae_large`
    """
    return _published("vit_large_patch16", epochs=1600, accumulate=16)


@_in_what_1600_departs
def mae_huge() -> MAEConfig:
    """ViT-H/14 on ImageNet-1K for 1,600 epochs: 86.9 % after fine-tuning (MAE, table 3; settings of table 8).

    With target `pixels` 86.2 % (table 7), fine-tuned at 448 px 87.8 % (table 3). Not run here: it needs ImageNet and
    GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_huge --data imagenet --out runs/mae_huge`
    """
    return _published("vit_huge_patch14", epochs=1600, accumulate=32)


@_in_what_800_departs
def mae_base_800() -> MAEConfig:
    """ViT-B/16 on ImageNet-1K for 800 epochs: 83.3 % after fine-tuning in mmpretrain's rerun (its MAE page).

    The paper draws this point (figure 8) without a number. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_base_800 --data imagenet --out runs/mae_base_800`
    """
    return _published("vit_base_patch16", epochs=800, accumulate=8)


@_in_what_800_departs
def mae_large_800() -> MAEConfig:
    """ViT-L/16 on ImageNet-1K for 800 epochs: 85.4 % after fine-tuning, 73.9 % linear (MAE, table 1d).

    The setting of all ablations of table 1, which predict plain pixels by default: with --target pixels 84.9 % and
    73.5 %. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_large_800 --data imagenet --out runs/mae_large_800`
    """
    return _published("vit_large_patch16", epochs=800, accumulate=16)


@_in_what_800_departs
def mae_huge_800() -> MAEConfig:
    """ViT-H/14 on ImageNet-1K for 800 epochs: 85.8 % after fine-tuning with --target pixels (MAE, table 2).

    No number is published for normalised pixels. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py mae_huge_800 --data imagenet --out runs/mae_huge_800`
    """
    return _published("vit_huge_patch14", epochs=800, accumulate=32)


def _published(backbone: str, *, epochs: int, accumulate: int) -> MAEConfig:
    """Return the settings of MAE's table 8; `accumulate` is for eight GPUs, and changes nothing but memory."""
    return MAEConfig(
        backbone=FAMILY[backbone],
        run=RunConfig(
            length=Duration(epochs, "epochs"),
            batch_size=4096,
            accumulate=accumulate,
            optim=OptimConfig(base_lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(40, "epochs")),
            eval_every=Duration(20, "epochs"),
            save_every=Duration(1, "epochs"),
        ),
    )


@departs(*FROM_LABELS)
def supervised_base() -> ClassificationConfig:
    """ViT-B/16 on ImageNet-1K from labels for 300 epochs: 82.3 % by its EMA (MAE, appendix A.2, table 11).

    82.1 % without EMA. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py supervised_base --data imagenet --out runs/supervised_base`
    """
    return _from_labels("vit_base_patch16", epochs=300, drop_path=0.1, accumulate=8)


@departs(*FROM_LABELS)
def supervised_large() -> ClassificationConfig:
    """ViT-L/16 on ImageNet-1K from labels for 200 epochs: 82.6 % by its EMA (MAE, appendix A.2, table 11).

    81.5 % without EMA. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py supervised_large --data imagenet --out runs/supervised_large`
    """
    return _from_labels("vit_large_patch16", epochs=200, drop_path=0.2, accumulate=16)


@departs(*FROM_LABELS)
def supervised_huge() -> ClassificationConfig:
    """ViT-H/14 on ImageNet-1K from labels for 200 epochs: 83.1 % by its EMA (MAE, appendix A.2, table 11).

    80.9 % without EMA. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/pretrain.py supervised_huge --data imagenet --out runs/supervised_huge`
    """
    return _from_labels("vit_huge_patch14", epochs=200, drop_path=0.2, accumulate=32)


def _from_labels(backbone: str, *, epochs: int, drop_path: float, accumulate: int) -> ClassificationConfig:
    """Return the settings of MAE's table 11; `accumulate` is for eight GPUs."""
    return ClassificationConfig(
        backbone=FAMILY[backbone],
        augment=Augmentation(randaugment="rand-m9-mstd0.5", mixup=0.8, cutmix=1.0),
        drop_path=drop_path,
        head_std=0.02,
        run=RunConfig(
            ema_decay=0.9999,
            length=Duration(epochs, "epochs"),
            batch_size=4096,
            accumulate=accumulate,
            optim=OptimConfig(base_lr=1e-4, betas=(0.9, 0.95), weight_decay=0.3),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(20, "epochs")),
            eval_every=Duration(1, "epochs"),
            save_every=Duration(1, "epochs"),
        ),
    )


RECIPES: dict[str, Callable[[], TaskConfig]] = {
    "tiny": tiny,
    "tiny_supervised": tiny_supervised,
    "tiny_half": tiny_half,
    "tiny_half_supervised": tiny_half_supervised,
    "tiny_double": tiny_double,
    "tiny_double_supervised": tiny_double_supervised,
    "small": small,
    "small_supervised": small_supervised,
    "mae_base": mae_base,
    "mae_large": mae_large,
    "mae_huge": mae_huge,
    "mae_base_800": mae_base_800,
    "mae_large_800": mae_large_800,
    "mae_huge_800": mae_huge_800,
    "supervised_base": supervised_base,
    "supervised_large": supervised_large,
    "supervised_huge": supervised_huge,
    **BEIT_RECIPES,
    **MOCO_RECIPES,
}
