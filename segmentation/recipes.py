"""Segmentation recipes."""

from collections.abc import Callable

from backbones.config import FAMILY
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from segmentation.config import HeadConfig, SegmentationConfig


def tiny() -> SegmentationConfig:
    """UPerNet for the embedded scenes (64 px), for the demo and for tests.

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg
    """
    return SegmentationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        taps=(1, 2, 3, 5),  # blocks 3, 5, 7 and 11 of 12 at half the depth
        head=HeadConfig(channels=64, aux_channels=64),
        resize=(256, 64),
        resize_ratio=(0.75, 1.5),
        drop_path=0.0,
        run=RunConfig(
            length=Duration(120),
            batch_size=8,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=8, layer_decay=0.75),
            schedule=ScheduleConfig(kind="poly", warmup=Duration(12)),
        ),
    )


def small() -> SegmentationConfig:
    """UPerNet on a data set of one's own of some hundreds of images, with the small patch-8 ViT.

    python tools/train_seg.py small --data DIR --init backbone.safetensors --out runs/my_seg
    """
    return SegmentationConfig(
        backbone=FAMILY["vit_demo_patch8"].at(160, 160),
        taps=(1, 2, 3, 5),
        head=HeadConfig(channels=64, aux_channels=64),
        resize=(768, 192),
        run=RunConfig(
            length=Duration(600),
            batch_size=8,
            optim=OptimConfig(base_lr=5e-4, base_batch_size=8, lr_scaling="sqrt", layer_decay=0.75),
            schedule=ScheduleConfig(kind="poly", warmup=Duration(50)),
            eval_batch_size=8,
        ),
    )


RECIPES: dict[str, Callable[[], SegmentationConfig]] = {"tiny": tiny, "small": small}
