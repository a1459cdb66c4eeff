"""A detection run small enough to train in a test."""

import pytest

from backbones.config import ViTConfig
from detection.config import DetectionConfig, HeadsConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig


@pytest.fixture
def small_config() -> DetectionConfig:
    """A ViT of two blocks with heads of 16 channels, four steps of four images."""
    return DetectionConfig(
        backbone=ViTConfig(embed_dim=32, depth=2, num_heads=2, patch_size=8, image_size=(64, 64)),
        image_size=64,
        scale_jitter=(0.5, 1.5),
        drop_path=0.1,
        heads=HeadsConfig(
            channels=16,
            rpn_convs=1,
            box_convs=1,
            box_width=32,
            mask_convs=1,
            anchor_scale=6.0,
            rpn_samples=16,
            roi_samples=16,
            pre_nms=(50, 50),
            post_nms=(20, 20),
        ),
        run=RunConfig(
            length=Duration(4),
            batch_size=4,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=4, layer_decay=0.8),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(1)),
            precision="32-true",
            log_every=1,
        ),
    )
