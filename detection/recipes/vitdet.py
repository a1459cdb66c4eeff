"""ViTDet's published recipes on COCO (arXiv 2203.16527, appendix A.2, tables 4, 5, 11; detectron2's projects/ViTDet).

Batch 64, 1,024 pixels with large-scale jitter from 0.1 to 2.0, AdamW, the learning rate cut to a tenth at 8/9 and 26/27
of the run after 250 steps of warm-up from a thousandth. Box and mask AP are those of val2017, single scale. Hours are
of an A100 at the seconds per image that detectron2's table of results states; where it has no row they are not
published. None of these was run here at full size: they need COCO and GPUs.
"""

from dataclasses import replace

from backbones.config import FAMILY, ViTConfig
from detection.config import DetectionConfig, Exemption, HeadsConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs

SIDE = 1024
PRETRAINED_SIDE = 224  # pixels that the position table stays made for
STEPS_OF_100_EPOCHS = 184_375  # at batch 64
MILESTONES = (163_889, 177_546)  # of the steps of 100 epochs
WARMUP = 250  # steps
GLOBAL_BLOCKS = {"base": (2, 5, 8, 11), "large": (5, 11, 17, 23), "huge": (7, 15, 23, 31)}

DEPARTURES = (
    "auto precision takes bfloat16 where the device has it; published runs used float16, also between devices",
    "the order of images and every random draw follow this project's seeds",
)
RANDOM_START = "random weights start as in MAE's code (Xavier, sin-cos positions), detectron2's from a normal of 0.02"
HUGE_WARMUP = "ViT-H warms up over 188 steps; detectron2's file over 250 / 184,375 of the run, 187.5 of 138,281 steps"
_in_what_it_departs = departs(*DEPARTURES)
_in_what_huge_departs = departs(*DEPARTURES, HUGE_WARMUP)
_in_what_random_departs = departs(*DEPARTURES, RANDOM_START)


def vitdet_backbone(size: str, *, relative: bool = True) -> ViTConfig:
    """Return the ViT of a size with ViTDet's windows of 14 patches and four global blocks; H/14 with patches of 16."""
    plain = FAMILY["vit_huge_patch14"] if size == "huge" else FAMILY[f"vit_{size}_patch16"]
    return replace(
        plain,
        patch_size=16,
        image_size=(SIDE, SIDE),
        window_size=14,
        global_blocks=GLOBAL_BLOCKS[size],
        relative_position="decomposed" if relative else "none",
    )


def _recipe(
    backbone: ViTConfig,
    *,
    cascade: bool = False,
    drop_path: float,
    layer_decay: float = 1.0,
    lr: float = 1e-4,
    weight_decay: float = 0.1,
    epochs: int = 100,
    warmup: int = WARMUP,
    no_weight_decay: Exemption = "block_norms_and_position",
) -> DetectionConfig:
    steps = STEPS_OF_100_EPOCHS * epochs // 100
    # whole steps, rounded down as detectron2's `milestone * 3 // 4` of 75 epochs
    milestones = tuple(milestone * epochs // 100 / steps for milestone in MILESTONES)
    return DetectionConfig(
        backbone=backbone,
        image_size=SIDE,
        position_size=PRETRAINED_SIDE,
        drop_path=drop_path,
        no_weight_decay=no_weight_decay,
        heads=HeadsConfig(cascade=cascade),
        run=RunConfig(
            length=Duration(steps),
            batch_size=64,
            optim=OptimConfig(base_lr=lr, base_batch_size=64, weight_decay=weight_decay, layer_decay=layer_decay),
            schedule=ScheduleConfig(
                kind="step", milestones=milestones, gamma=0.1, warmup=Duration(warmup), warmup_start=0.001
            ),
            eval_every=Duration(5000),
            save_every=Duration(5000),
            workers=4,
            eval_batch_size=1,
        ),
    )


def _base(*, cascade: bool = False) -> DetectionConfig:
    return _recipe(vitdet_backbone("base"), cascade=cascade, drop_path=0.1, layer_decay=0.7)


def _large(*, cascade: bool = False) -> DetectionConfig:
    return _recipe(vitdet_backbone("large"), cascade=cascade, drop_path=0.4, layer_decay=0.8)


def _huge(*, cascade: bool = False) -> DetectionConfig:
    return _recipe(
        vitdet_backbone("huge"),
        cascade=cascade,
        drop_path=0.5,
        layer_decay=0.9,
        epochs=75,
        warmup=188,
        no_weight_decay="nothing",
    )


@_in_what_it_departs
def vitdet_base() -> DetectionConfig:
    """ViTDet-B Mask R-CNN, 100 epochs: box AP 51.6, mask AP 45.9 from MAE (ViTDet, table 5).

    About 1,030 A100-hours: 0.314 s an image.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base --data coco --init mae_pretrain_vit_base.pth
    --init-source mae --out runs/vitdet`
    """
    return _base()


@_in_what_it_departs
def vitdet_large() -> DetectionConfig:
    """ViTDet-L Mask R-CNN, 100 epochs: box AP 55.6, mask AP 49.2 from MAE (ViTDet, table 5).

    About 1,980 A100-hours: 0.603 s an image. detectron2's file of it: 55.5 and 49.2.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_large --data coco --init mae_pretrain_vit_large.pth
    --init-source mae --out runs/vitdet`
    """
    return _large()


@_in_what_huge_departs
def vitdet_huge() -> DetectionConfig:
    """ViTDet-H Mask R-CNN, 75 epochs: box AP 56.7, mask AP 50.1 from MAE (ViTDet, table 5).

    About 2,700 A100-hours: 1.098 s an image. detectron2's file of it: 56.7 and 50.2. MAE's H/14 becomes
    H/16 by --init-resize-patch (appendix A.2).

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_huge --data coco --init mae_pretrain_vit_huge.pth
    --init-source mae --init-resize-patch --out runs/vitdet`
    """
    return _huge()


@_in_what_it_departs
def vitdet_cascade_base() -> DetectionConfig:
    """ViTDet-B Cascade Mask R-CNN, 100 epochs: box AP 54.0, mask AP 46.7 from MAE (ViTDet, table 5).

    About 1,190 A100-hours: 0.362 s an image.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_cascade_base --data coco --init mae_pretrain_vit_base.pth
    --init-source mae --out runs/vitdet`
    """
    return _base(cascade=True)


@_in_what_it_departs
def vitdet_cascade_large() -> DetectionConfig:
    """ViTDet-L Cascade Mask R-CNN, 100 epochs: box AP 57.6, mask AP 49.8 from MAE (ViTDet, table 5).

    About 2,110 A100-hours: 0.643 s an image. detectron2's file of it: 57.6 and 50.0.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_cascade_large --data coco --init mae_pretrain_vit_large.pth
    --init-source mae --out runs/vitdet`
    """
    return _large(cascade=True)


@_in_what_huge_departs
def vitdet_cascade_huge() -> DetectionConfig:
    """ViTDet-H Cascade Mask R-CNN, 75 epochs: box AP 58.7, mask AP 50.9 from MAE (ViTDet, table 5).

    About 2,800 A100-hours: 1.137 s an image. detectron2's file of it: 58.7 and 51.0.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_cascade_huge --data coco --init mae_pretrain_vit_huge.pth
    --init-source mae --init-resize-patch --out runs/vitdet`
    """
    return _huge(cascade=True)


@_in_what_it_departs
def vitdet_base_norelpos() -> DetectionConfig:
    """ViTDet-B Mask R-CNN without relative positions: box AP 51.2, mask AP 45.5 from MAE (ViTDet, table 4).

    The row that is compared with `vitdet_base_norelpos_supervised` and `vitdet_base_norelpos_random`, which have
    settings of their own, found by search for each (table 11). GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base_norelpos --data coco --init mae_pretrain_vit_base.pth
    --init-source mae --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("base", relative=False), drop_path=0.1, layer_decay=0.7)


@_in_what_it_departs
def vitdet_large_norelpos() -> DetectionConfig:
    """ViTDet-L Mask R-CNN without relative positions: box AP 54.6, mask AP 48.6 from MAE (ViTDet, table 4).

    GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_large_norelpos --data coco --init mae_pretrain_vit_large.pth
    --init-source mae --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("large", relative=False), drop_path=0.4, layer_decay=0.8)


@_in_what_it_departs
def vitdet_base_norelpos_supervised() -> DetectionConfig:
    """ViTDet-B from labels, 50 epochs: box AP 47.6, mask AP 42.4 from ImageNet-1K (ViTDet, table 4).

    From ImageNet-21K 47.8 and 42.6 (--arm supervised_in21k). Learning rate 8e-5, no layer-wise decay (table 11).
    GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base_norelpos_supervised --data coco --init
    deit_base_patch16_224-b5f2ef4d.pth --init-source timm --arm supervised --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("base", relative=False), drop_path=0.1, lr=8e-5, epochs=50)


@_in_what_it_departs
def vitdet_large_norelpos_supervised() -> DetectionConfig:
    """ViTDet-L from labels, 50 epochs: box AP 49.6, mask AP 43.8 from ImageNet-1K (ViTDet, table 4).

    From ImageNet-21K 50.6 and 44.8 (--arm supervised_in21k). GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_large_norelpos_supervised --data coco --init FILE
    --init-source SOURCE --arm supervised --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("large", relative=False), drop_path=0.4, lr=8e-5, epochs=50)


@_in_what_random_departs
def vitdet_base_norelpos_random() -> DetectionConfig:
    """ViTDet-B from random weights, 300 epochs: box AP 48.1, mask AP 42.6 (ViTDet, table 4).

    Learning rate 1.6e-4, weight decay 0.2, no layer-wise decay (table 11). GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base_norelpos_random --data coco --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("base", relative=False), drop_path=0.1, lr=1.6e-4, weight_decay=0.2, epochs=300)


@_in_what_random_departs
def vitdet_large_norelpos_random() -> DetectionConfig:
    """ViTDet-L from random weights, 200 epochs: box AP 50.0, mask AP 44.2 (ViTDet, table 4).

    GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_large_norelpos_random --data coco --out runs/vitdet`
    """
    return _recipe(vitdet_backbone("large", relative=False), drop_path=0.4, lr=1.6e-4, weight_decay=0.2, epochs=200)


VITDET = {
    recipe.__name__: recipe
    for recipe in (
        vitdet_base,
        vitdet_large,
        vitdet_huge,
        vitdet_cascade_base,
        vitdet_cascade_large,
        vitdet_cascade_huge,
        vitdet_base_norelpos,
        vitdet_large_norelpos,
        vitdet_base_norelpos_supervised,
        vitdet_large_norelpos_supervised,
        vitdet_base_norelpos_random,
        vitdet_large_norelpos_random,
    )
}
