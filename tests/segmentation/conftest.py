"""A tiny data set in the ADE20K layout, and a tiny recipe for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.config import ViTConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from segmentation.config import HeadConfig, SegmentationConfig

WriteFolder = Callable[..., Path]


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write `train` and `val` images of 40 x 32 pixels, whose left half is class 1 and right half another."""

    def write(*, train: int = 4, val: int = 3, names: tuple[str, ...] | None = ("left", "dark", "bright")) -> Path:
        rng = np.random.default_rng(0)
        for split, count in (("training", train), ("validation", val)):
            for kind in ("images", "annotations"):
                (tmp_path / kind / split).mkdir(parents=True)
            for number in range(count):
                right = 2 + number % 2
                image = rng.integers(0, 40, (32, 40, 3), dtype=np.uint8)
                image[:, 20:] += np.uint8(80 * (right - 1))
                label = np.full((32, 40), right, dtype=np.uint8)
                label[:, :20] = 1
                label[:2] = 0
                Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.jpg")
                Image.fromarray(label).save(tmp_path / "annotations" / split / f"{number}.png")
        if names is not None:
            rows = [f"{number}\t0.1\t{train}\t{val}\t{name}" for number, name in enumerate(names, start=1)]
            (tmp_path / f"objectInfo{len(names)}.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
        return tmp_path

    return write


@pytest.fixture
def config() -> SegmentationConfig:
    """A ViT 16 wide and four deep on crops of 32 pixels."""
    return SegmentationConfig(
        backbone=ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32)),
        out_indices=(0, 1, 2, 3),
        head=HeadConfig(channels=8, aux_channels=8),
        resize=(40, 32),
        drop_path=0.0,
        run=RunConfig(
            length=Duration(3),
            batch_size=2,
            optim=OptimConfig(base_lr=1e-3, base_batch_size=2),
            schedule=ScheduleConfig(kind="constant"),
            precision="32-true",
            log_every=1,
        ),
    )
