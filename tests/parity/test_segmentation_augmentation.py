"""Our transforms give what mmseg's published pipelines give, pixel for pixel, from the same seed."""

from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from PIL import Image

from engine.training.seeding import seed_all
from segmentation.data.labels import from_one
from segmentation.data.mapping import train_pipeline, val_pipeline
from segmentation.host import TRANSFORMS
from segmentation.recipes import beit_base_640, mae_base_mmseg

CONFIGS = Path(mmseg.__file__).parent / ".mim/configs/_base_/datasets"
SEEDS = 12


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A noisy photograph of 90 x 61 pixels without a loss, and labels of 150 classes in blocks, one class over half."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (61, 90, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    label = rng.integers(0, 151, (7, 9), dtype=np.uint8).repeat(9, 0).repeat(10, 1)[:61]
    label[:, 40:] = 7
    Image.fromarray(label).save(tmp_path / "label.png")
    return tmp_path / "image.png", tmp_path / "label.png"


def run(pipeline: Any, files: tuple[Path, Path], seed: int) -> Any:
    """What the pipeline packs, its generators seeded."""
    seed_all(seed)
    sample: Any = {"img_path": str(files[0]), "seg_map_path": str(files[1]), "seg_fields": [], "image_id": "image.png"}
    return Compose(pipeline)({**sample, "reduce_zero_label": True, "label_map": None})


def built(nodes: list[dict[str, Any]], crop: int, scale: tuple[int, int]) -> list[Any]:
    """The published transforms, their sizes made small."""
    for node in nodes:
        if "scale" in node:
            node["scale"] = scale
        if "crop_size" in node:
            node["crop_size"] = (crop, crop)
    return [TRANSFORMS.build(node) for node in nodes]


@pytest.mark.parametrize(("file", "recipe"), [("ade20k.py", mae_base_mmseg), ("ade20k_640x640.py", beit_base_640)])
def test_sizes_are_those_of_the_recipes(file: str, recipe: Any) -> None:
    theirs = {node.type: node for node in Config.fromfile(CONFIGS / file).train_pipeline}
    ours = recipe()
    assert theirs["RandomCrop"].crop_size == ours.backbone.image_size
    assert theirs["RandomCrop"].cat_max_ratio == ours.cat_max_ratio
    assert tuple(theirs["RandomResize"].scale) == ours.resize
    assert tuple(theirs["RandomResize"].ratio_range) == ours.resize_ratio
    test = {node.type: node for node in Config.fromfile(CONFIGS / file).test_pipeline}
    assert tuple(test["Resize"].scale) == ours.resize


def test_training_samples_are_equal(files: tuple[Path, Path]) -> None:
    nodes = Config.fromfile(CONFIGS / "ade20k.py").train_pipeline
    recipe = mae_base_mmseg()
    ours = train_pipeline(
        from_one(150),
        crop=(32, 32),
        resize=(256, 64),
        resize_ratio=recipe.resize_ratio,
        cat_max_ratio=recipe.cat_max_ratio,
    )
    theirs = built(nodes, 32, (256, 64))
    flips = set()
    for seed in range(SEEDS):
        mine, host = run(ours, files, seed), run(theirs, files, seed)
        assert torch.equal(mine["inputs"], host["inputs"])
        assert torch.equal(mine["data_samples"].gt_sem_seg.data, host["data_samples"].gt_sem_seg.data)
        flips.add(mine["data_samples"].flip)
    assert flips == {False, True}


def test_evaluation_samples_are_equal(files: tuple[Path, Path]) -> None:
    nodes = Config.fromfile(CONFIGS / "ade20k.py").test_pipeline
    mine = run(val_pipeline(from_one(150), resize=(256, 64)), files, 0)
    host = run(built(nodes, 32, (256, 64)), files, 0)
    assert torch.equal(mine["inputs"], host["inputs"])
    assert torch.equal(mine["data_samples"].gt_sem_seg.data, host["data_samples"].gt_sem_seg.data)
    assert mine["data_samples"].ori_shape == host["data_samples"].ori_shape == (61, 90)
