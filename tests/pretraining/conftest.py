"""A pre-training small enough for a test, and its images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.config import ViTConfig
from classification.config import Augmentation, ClassificationConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from pretraining.mae.config import MAEConfig

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))
RUN = RunConfig(
    length=Duration(2),
    batch_size=4,
    optim=OptimConfig(base_lr=1e-3, base_batch_size=4),
    schedule=ScheduleConfig(),
)


@pytest.fixture
def mae_config() -> MAEConfig:
    """Sixteen patches, a decoder of one block."""
    return MAEConfig(backbone=TINY, run=RUN, decoder_dim=12, decoder_depth=1, decoder_heads=3)


@pytest.fixture
def class_config() -> ClassificationConfig:
    """The same ViT from labels."""
    return ClassificationConfig(backbone=TINY, run=RUN, augment=Augmentation(), head_std=0.02)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Noisy images of two classes: three each to train on, two each to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "data"
