"""Dense probes of every layout: a class that can be told by its colour is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.records.record import read_record
from segmentation.config import LayoutName
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.run import run_dense_probes
from tests.segmentation.probe.dense_samples import TINY

PLACES: dict[LayoutName, tuple[tuple[str, str], str, str, tuple[int, int]]] = {
    "ade20k": (("training", "validation"), "images/{split}/{n}.png", "annotations/{split}/{n}.png", (1, 2)),
    "cityscapes": (
        ("train", "val"),
        "leftImg8bit/{split}/ulm/{n}_leftImg8bit.png",
        "gtFine/{split}/ulm/{n}_gtFine_labelIds.png",
        (7, 26),
    ),
    "voc": (("train", "val"), "JPEGImages/{n}.png", "SegmentationClass/{n}.png", (0, 15)),
    "coco_stuff": (("train2017", "val2017"), "images/{split}/{n}.png", "annotations/{split}/{n}.png", (0, 181)),
    "folder": (("train", "val"), "images/{split}/{n}.png", "labels/{split}/{n}.png", (0, 1)),
}
"""By layout: splits, image, label map, and the numbers of a dark and of a bright class."""


def written(root: Path, layout: LayoutName) -> Path:
    """Write six training and three validation images whose left or right half, or rows, are bright."""
    splits, image_at, label_at, numbers = PLACES[layout]
    rng = np.random.default_rng(0)
    for split, count in zip(splits, (6, 3), strict=True):
        names = [f"{split}_{n}_0" for n in range(count)]
        for name in names:
            bright = np.kron(rng.integers(0, 2, (2, 3)), np.ones((16, 16), dtype=int)).astype(bool)
            image = np.where(bright, 220, 30)[..., None] + rng.integers(0, 30, (32, 48, 3))
            for at, array in ((image_at, image), (label_at, np.where(bright, numbers[1], numbers[0]))):
                path = root / at.format(split=split, n=name)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
        if layout == "voc":
            listed = root / "ImageSets/Segmentation" / f"{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("\n".join(names) + "\n")
    if layout == "folder":
        (root / "classes.txt").write_text("dark\nbright\n")
    return root


@pytest.mark.parametrize("layout", PLACES)
def test_every_layout(layout: LayoutName, tmp_path: Path) -> None:
    config = DenseProbeConfig(backbone=TINY, layout=layout, memory=500, linear_iterations=20)
    data = written(tmp_path / "data", layout)
    run_dense_probes(config, data=data, init=None, out=tmp_path / "out", cache=tmp_path / "cache", say=lambda _: None)
    for task in ("knn_segmentation", "linear_segmentation"):
        metrics = read_record(tmp_path / "out" / task).metrics
        assert metrics["miou"] > 60 > metrics["mean_label_map"], metrics
        assert metrics["aacc"] > 80
