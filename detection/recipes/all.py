"""Recipes of detection."""

from collections.abc import Callable

from backbones.config import FAMILY
from detection.config import DetectionConfig, HeadsConfig
from detection.recipes.li2021 import LI2021
from detection.recipes.lvis import LVIS
from detection.recipes.vitdet import VITDET
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig


def tiny() -> DetectionConfig:
    """Mask R-CNN on 64-pixel scenes, for the demonstration.

    python tools/train_det.py tiny --data runs/demo/scenes-transfer/coco --init backbone.safetensors --out runs/det
    """
    return DetectionConfig(
        backbone=FAMILY["vit_demo_patch8"],
        image_size=64,
        scale_jitter=(0.8, 1.25),
        heads=HeadsConfig(
            channels=64,
            class_agnostic=True,
            rpn_convs=1,
            box_convs=1,
            box_width=256,
            mask_convs=2,
            anchor_scale=6.0,  # 12 to 192 pixels: scenes have no smaller objects
            # 7 to 14 map cells per box rather than 14 to 28, so one point between 2x2 of them sees all:
            # pooling would be half of a step on a CPU
            canonical_box=112.0,
            pool_points=1,
            rpn_samples=64,
            roi_samples=24,
            pre_nms=(200, 200),
            post_nms=(100, 100),
            max_detections=50,
        ),
        run=RunConfig(
            length=Duration(120),
            batch_size=8,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=8, weight_decay=0.1, layer_decay=0.8, clip_norm=5.0),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(12)),
        ),
    )


def small() -> DetectionConfig:
    """Mask R-CNN on a data set of one's own: some hundreds of images, any number of classes.

    python tools/train_det.py small --data DIR --train-split train --val-split val --init WEIGHTS --out RUN
    """
    return DetectionConfig(
        backbone=FAMILY["vit_demo_patch8"],
        image_size=192,
        scale_jitter=(0.5, 1.5),
        drop_path=0.1,
        heads=HeadsConfig(
            channels=96,
            rpn_convs=1,
            box_convs=2,
            box_width=512,
            mask_convs=2,
            canonical_box=112.0,
            pool_points=1,
            rpn_samples=128,
            roi_samples=128,
            pre_nms=(500, 500),
            post_nms=(300, 300),
        ),
        run=RunConfig(
            length=Duration(600),
            batch_size=8,
            optim=OptimConfig(
                base_lr=5e-4,
                base_batch_size=8,
                lr_scaling="sqrt",
                weight_decay=0.1,
                layer_decay=0.8,
                clip_norm=5.0,
            ),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(50)),
        ),
    )


RECIPES: dict[str, Callable[[], DetectionConfig]] = {"tiny": tiny, "small": small, **VITDET, **LI2021, **LVIS}
