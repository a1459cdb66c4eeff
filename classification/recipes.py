"""Recipes of classification: short ones for one's own images, and MAE's published ones on ImageNet-1K.

None of the published ones has been run here: they need ImageNet and GPUs. `departs` says in which ways a run differs.
"""

from collections.abc import Callable

from backbones.config import FAMILY
from classification.config import Augmentation, ClassificationConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs, drops_last

Recipe = Callable[[], ClassificationConfig]
PRECISION = "bfloat16 autocast where the device has it; {published}"
RELEASED = PRECISION.format(published="the released code trains in float16 autocast")
LARGE_CROP = (
    "evaluation resizes to 256 / 224 of the resolution at every size; the released code takes the whole shorter side "
    "above 224 px (--crop-pct 1)"
)
LINEAR = (
    RELEASED,
    drops_last("the released code", epochs=90, batch_size=16384),
    "LARS is timm's: with --weight-decay above 0 (here 0) its trust ratio divides by |gradient| + decay |w|, "
    "MAE's util/lars.py by |gradient + decay w|",
    "torchvision's random crop, which tries ten times before it takes the centre; MAE's code places a crop at once "
    "(util/crop.py)",
)


def _fine_tuning_departs(epochs: int) -> Callable[[Recipe], Recipe]:
    return departs(RELEASED, LARGE_CROP, drops_last("the released code", epochs=epochs, batch_size=1024))


def tiny() -> ClassificationConfig:
    """Some hundred labelled scenes of 64 px: the demo's transfer, a quarter of a minute on two CPU cores.

    Of the learning rates 1e-3 and 3e-3 the second was better by 19 points of top-1 from MAE, and by 1.5 from random
    weights (one seed, studies/demo).

    `python tools/train_cls.py tiny --data runs/demo/scenes-transfer/imagenet --out runs/cls`
    """
    return ClassificationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        augment=Augmentation(crop_scale=(0.5, 1.0)),
        run=RunConfig(
            length=Duration(60),
            batch_size=32,
            optim=OptimConfig(base_lr=3e-3, base_batch_size=32, weight_decay=0.05, layer_decay=0.75),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(6), final=1e-3),
        ),
    )


def small() -> ClassificationConfig:
    """One's own few thousand labelled images with the small patch-8 ViT at 64 px.

    `python tools/train_cls.py small --data DIR --init backbone.safetensors --out runs/cls`
    """
    return ClassificationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        augment=Augmentation(crop_scale=(0.35, 1.0), mixup=0.4, cutmix=0.4),
        drop_path=0.1,
        run=RunConfig(
            length=Duration(10, "epochs"),
            batch_size=128,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=128, weight_decay=0.05, layer_decay=0.75),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(1, "epochs"), final=1e-3),
            save_every=Duration(200),
        ),
    )


@_fine_tuning_departs(100)
def mae_base() -> ClassificationConfig:
    """ViT-B/16 fine-tuned on ImageNet-1K after MAE: 83.6 % top-1 (MAE, table 3; the released code gives 83.66).

    The released code's settings: base lr 5e-4 per 256, layer decay 0.65, drop path 0.1, RandAugment, mixup 0.8,
    cutmix 1.0, erasing 0.25, 100 epochs of batch 1,024 (FINETUNE.md; the paper's table 9 states lr 1e-3 and 0.75).
    Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_base --data imagenet --init FILE --init-source mae
    --out runs/ft`
    """
    return _fine_tuned("vit_base_patch16", epochs=100, base_lr=5e-4, layer_decay=0.65, drop_path=0.1, accumulate=4)


@_fine_tuning_departs(50)
def mae_large() -> ClassificationConfig:
    """ViT-L/16 fine-tuned on ImageNet-1K after MAE: 85.9 % top-1 (MAE, table 3; the released code gives 85.95).

    The released code's settings: as `mae_base` with base lr 1e-3, layer decay 0.75, drop path 0.2 and 50 epochs
    (FINETUNE.md; the paper's table 9 states drop path 0.1). Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_large --data imagenet --init FILE --init-source mae
    --out runs/ft`
    """
    return _fine_tuned("vit_large_patch16", epochs=50, base_lr=1e-3, layer_decay=0.75, drop_path=0.2, accumulate=4)


@_fine_tuning_departs(50)
def mae_huge() -> ClassificationConfig:
    """ViT-H/14 fine-tuned on ImageNet-1K after MAE: 86.9 % top-1 (MAE, table 3; the released code gives 86.93).

    The released code's settings: as `mae_large` with drop path 0.3 (FINETUNE.md; the paper's table 9 states 0.2).
    Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_huge --data imagenet --init FILE --init-source mae
    --out runs/ft`
    """
    return _fine_tuned("vit_huge_patch14", epochs=50, base_lr=1e-3, layer_decay=0.75, drop_path=0.3, accumulate=8)


@departs(
    "50 epochs; the paper took the best of 50, 100 and 200 for every number of blocks",
    "the head reads the mean of the patch tokens, as in the released code; the paper's own code read the class token",
    "RandAugment is timm's rand-m9-mstd0.5-inc1, as in the released code; the paper states (9, 0.5)",
    PRECISION.format(published="the paper's code had no explicit mixed precision"),
)
def mae_large_partial4() -> ClassificationConfig:
    """ViT-L/16 after MAE, its last 4 blocks and the head fine-tuned: 84.2 % top-1 (MAE, figure 9).

    MAE's table 9 with nothing before block 20 learning (appendix A.1), after 800 epochs of pre-training. Figure 9 for
    0.5, 1, 2, 4, 6, 12, 18 and 24 blocks: 79.1, 81.0, 83.1, 84.2, 84.4, 84.6, 84.7 and 84.9; take --tuned-blocks (fewer
    need longer). Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_large_partial4 --data imagenet --init FILE --init-source mae
    --out runs/partial`
    """
    return ClassificationConfig(
        backbone=FAMILY["vit_large_patch16"],
        augment=Augmentation(randaugment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0),
        drop_path=0.1,
        protocol="partial",
        tuned_blocks=4,
        run=RunConfig(
            length=Duration(50, "epochs"),
            batch_size=1024,
            optim=OptimConfig(base_lr=1e-3, weight_decay=0.05, layer_decay=0.75),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs")),
            eval_every=Duration(1, "epochs"),
            save_every=Duration(1, "epochs"),
            workers=10,
        ),
    )


@departs(*LINEAR)
def mae_base_linear() -> ClassificationConfig:
    """ViT-B/16 after MAE, a linear probe on its class token: 68.0 % top-1 (MAE, table 12; the released code 67.8).

    Batch 16,384, LARS, base lr 0.1 per 256, no weight decay, 90 epochs (10 of warm-up), crop and flip alone (MAE,
    appendix A.1 and table 10). Unlike MAE's code the frozen ViT is in eval mode, which for its model without dropout is
    the same. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_base_linear --data imagenet --init FILE --init-source mae
    --out runs/linear`
    """
    return _linear("vit_base_patch16")


@departs(*LINEAR)
def mae_large_linear() -> ClassificationConfig:
    """ViT-L/16 after MAE, a linear probe on its class token: 75.8 % top-1 (MAE, table 12; the released code 76.0).

    As `mae_base_linear`; by the released code --epochs 50 is enough. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_large_linear --data imagenet --init FILE --init-source mae
    --out runs/linear`
    """
    return _linear("vit_large_patch16")


@departs(*LINEAR)
def mae_huge_linear() -> ClassificationConfig:
    """ViT-H/14 after MAE, a linear probe on its class token: 76.6 % top-1 (MAE, table 12; the released code 77.2).

    As `mae_base_linear`; by the released code --epochs 50 is enough. Not run here: it needs ImageNet and GPUs.

    `torchrun --nproc-per-node 8 tools/train_cls.py mae_huge_linear --data imagenet --init FILE --init-source mae
    --out runs/linear`
    """
    return _linear("vit_huge_patch14")


def _fine_tuned(
    backbone: str, *, epochs: int, base_lr: float, layer_decay: float, drop_path: float, accumulate: int
) -> ClassificationConfig:
    """Return the released fine-tuning; `accumulate` gives each of eight GPUs its micro-batch.

    That is also the images which mixup and cutmix draw one factor for.
    """
    optim = OptimConfig(base_lr=base_lr, weight_decay=0.05, layer_decay=layer_decay)
    return ClassificationConfig(
        backbone=FAMILY[backbone],
        augment=Augmentation(randaugment="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0),
        drop_path=drop_path,
        run=RunConfig(
            length=Duration(epochs, "epochs"),
            batch_size=1024,
            accumulate=accumulate,
            optim=optim,
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(5, "epochs"), final=1e-6 / optim.lr(1024)),
            eval_every=Duration(1, "epochs"),
            save_every=Duration(1, "epochs"),
            workers=10,
        ),
    )


def _linear(backbone: str) -> ClassificationConfig:
    """Return the released linear probe; on eight GPUs its batch norm sees 512 images, as in the released code."""
    return ClassificationConfig(
        backbone=FAMILY[backbone],
        augment=Augmentation(label_smoothing=0.0),
        protocol="linear",
        pooling="class",
        head_std=0.01,
        run=RunConfig(
            length=Duration(90, "epochs"),
            batch_size=16384,
            accumulate=4,
            optim=OptimConfig(kind="lars", base_lr=0.1, weight_decay=0.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(10, "epochs")),
            eval_every=Duration(1, "epochs"),
            save_every=Duration(1, "epochs"),
            workers=10,
        ),
    )


RECIPES: dict[str, Callable[[], ClassificationConfig]] = {
    "tiny": tiny,
    "small": small,
    "mae_base": mae_base,
    "mae_large": mae_large,
    "mae_huge": mae_huge,
    "mae_base_linear": mae_base_linear,
    "mae_large_linear": mae_large_linear,
    "mae_huge_linear": mae_huge_linear,
    "mae_large_partial4": mae_large_partial4,
}
