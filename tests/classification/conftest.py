"""A classification small enough for a test, and its images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.config import ViTConfig
from classification.config import Augmentation, ClassificationConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig


@pytest.fixture
def config() -> ClassificationConfig:
    """A ViT of two blocks at 32 px, no drop path."""
    return ClassificationConfig(
        backbone=ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32)),
        augment=Augmentation(),
        head_std=0.02,
        run=RunConfig(
            length=Duration(2),
            batch_size=4,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=4, weight_decay=0.05, layer_decay=0.5),
            schedule=ScheduleConfig(),
        ),
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Noisy images of three classes: two each to train on, one each to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in ("ant", "bee", "cow"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "data"
