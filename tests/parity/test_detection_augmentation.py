"""Large-scale jitter against detectron2's mapper with ViTDet's settings: the same samples from the same seeds."""

import json
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from scipy import stats

from detection.data.coco import CocoSplit, read_coco
from detection.data.mapping import DetectionData, train_data
from detection.recipes.all import RECIPES
from engine.training.seeding import derive, seeded

HEIGHT, WIDTH, SIDE = 90, 120, 128
BOXES = [(10, 10, 30, 40), (60, 20, 50, 60), (100, 70, 15, 12)]


def their_mapper(side: int) -> Any:
    """What projects/ViTDet's coco_loader_lsj.py makes of detectron2's mapper, with masks as run lengths."""
    return instantiate(
        LazyCall(DatasetMapper)(
            is_train=True,
            augmentations=[
                LazyCall(T.RandomFlip)(horizontal=True),
                LazyCall(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=side, target_width=side),
                LazyCall(T.FixedSizeCrop)(crop_size=(side, side), pad=False),
            ],
            image_format="RGB",
            use_instance_mask=True,
            instance_mask_format="bitmask",
            recompute_boxes=True,
        )
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> CocoSplit:
    """One image of noise with three ellipses, as run lengths."""
    root = tmp_path_factory.mktemp("coco")
    (root / "train").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(root / "train" / "a.png")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    annotations = []
    for number, (x, y, w, h) in enumerate(BOXES, start=1):
        inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 < 1
        packed = rle.encode(np.asfortranarray(inside, dtype=np.uint8))
        mask = {"size": list(packed["size"]), "counts": packed["counts"].decode()}
        annotations.append(
            {"id": number, "image_id": 1, "category_id": number, "bbox": [x, y, w, h], "segmentation": mask}
        )
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": n, "name": str(n)} for n in (1, 2, 3)],
    }
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return read_coco(path, data=root, split="train")


@pytest.fixture
def data(split: CocoSplit) -> DetectionData:
    """The image as ViTDet's recipe trains on it, in a smaller square."""
    recipe = RECIPES["vitdet_base"]()
    jitter, flip = recipe.scale_jitter, recipe.flip
    return train_data(split, image_size=SIDE, scale_jitter=jitter, flip=flip, masks=True)[0]


def test_samples_are_detectron2s(split: CocoSplit, data: DetectionData) -> None:
    theirs = their_mapper(SIDE)
    objects, shapes = [], set()
    for seed in range(60):
        record = split.records[0]
        for annotation in record["annotations"]:
            annotation["bbox_mode"] = BoxMode.XYWH_ABS
        with seeded(seed):
            expected = theirs(record)
        with seeded(seed):
            made = data[0]
        assert torch.equal(made["image"], expected["image"])
        a, b = made["instances"], expected["instances"]
        assert a.image_size == b.image_size and torch.equal(a.gt_classes, b.gt_classes)
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
        objects.append(len(a))
        shapes.add(tuple(made["image"].shape[1:]))
    # crops lose objects now and then, and images below the square stay as small as they are
    assert min(objects) < 3 == max(objects) and (128, 128) in shapes and min(map(max, shapes)) < 64


def test_draws_over_positions_of_a_run(data: DetectionData) -> None:
    """Each position of the data order has a seed of its own; together they are the published distributions."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    scales, flips, corners = [], [], []
    for position in range(1500):
        with seeded(derive(0, "sample", position)):
            moved = data.mapper.augmentations(T.AugInput(image)).apply_coords(np.array([[0.0, 0.0], [WIDTH, HEIGHT]]))
        width = moved[1, 0] - moved[0, 0]
        flips.append(width < 0)
        scales.append(abs(width) / SIDE)  # the longer side over the square's
        if abs(width) > 1.2 * SIDE:
            corners.append(-min(moved[0][0], moved[1][0]) / (abs(width) - SIDE))
    # Kolmogorov-Smirnov; a right generator fails one seed in a thousand, and these seeds are fixed
    assert stats.kstest(scales, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    assert stats.kstest(corners, stats.uniform(0, 1).cdf).pvalue > 1e-3
    # four standard deviations of 1,500 coins
    assert np.mean(flips) == pytest.approx(0.5, abs=4 * 0.5 / 1500**0.5)
    # flip and scale are independent
    assert abs(np.corrcoef(scales, flips)[0, 1]) < 4 / 1500**0.5
