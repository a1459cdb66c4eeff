"""Foreign data sets of any damage: converted, or refused with the name of the file."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conversion.coco_exports import read_coco_export
from conversion.coco_layout import write_coco
from conversion.cvat import read_cvat
from conversion.dataset import DataSet
from conversion.voc import VocRules, read_voc
from conversion.yolo import read_yolo

VOC = b"""<annotation><filename>a.png</filename><size><width>8</width><height>6</height></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"""
CVAT = b"""<?xml version="1.0" encoding="utf-8"?><annotations><meta><task><labels><label><name>cat</name></label>
</labels></task></meta><image id="0" name="a.png" subset="train" width="8" height="6">
<box label="cat" xtl="1" ytl="2" xbr="3.5" ybr="4" rotation="10"/><polygon label="cat" points="1,1;4,1;4,5"/>
<mask label="cat" rle="1, 2, 1" left="2" top="2" width="2" height="2"/></image></annotations>"""
LABELS = b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.5 0.1 0.5 0.5\n"
YAML = b"path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\nkpt_shape:\nnc: 2\n"
RUNS = {"size": [6, 8], "counts": [9, 2, 37]}
OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "segmentation": [[1, 1, 4, 1, 4, 4]]}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
    "categories": [{"id": 0, "name": "all", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "all"}],
    "annotations": [OBJECT, {**OBJECT, "id": 2, "segmentation": RUNS}],
}


@pytest.fixture
def converts(tmp_path: Path) -> Iterator[Callable[[Callable[[], DataSet]], None]]:
    """`converts(read)`: write what is read as COCO without masks, and remove it."""

    def check(read: Callable[[], DataSet]) -> None:
        out = tmp_path / "out"
        write_coco(read(), out, boxes_only=True)
        assert sorted(path.name for path in out.iterdir())[0] == "annotations"
        shutil.rmtree(out)

    yield check
    assert not list(tmp_path.glob(".*"))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)


def test_voc(campaign: Any, damaged_bytes: Any, converts: Any, tmp_path: Path) -> None:
    picture(tmp_path / "set/JPEGImages/a.png")
    (tmp_path / "set/Annotations").mkdir()

    def read(content: bytes) -> None:
        (tmp_path / "set/Annotations/a.xml").write_bytes(content)
        converts(lambda: read_voc(tmp_path / "set", VocRules()))

    campaign.run(lambda rng: damaged_bytes(rng, VOC), read, cases=100, names=str(tmp_path))


def test_cvat(campaign: Any, damaged_bytes: Any, converts: Any, tmp_path: Path) -> None:
    picture(tmp_path / "set/a.png")

    def read(content: bytes) -> None:
        (tmp_path / "set/annotations.xml").write_bytes(content)
        converts(lambda: read_cvat(tmp_path / "set"))

    campaign.run(lambda rng: damaged_bytes(rng, CVAT), read, cases=100, names=str(tmp_path))


def test_yolo(campaign: Any, damaged_bytes: Any, converts: Any, tmp_path: Path) -> None:
    picture(tmp_path / "set/images/a.png")
    (tmp_path / "set/labels").mkdir()

    def case(rng: random.Random) -> tuple[bytes, bytes]:
        yaml = rng.random() < 0.5
        return (damaged_bytes(rng, YAML), LABELS) if yaml else (YAML, damaged_bytes(rng, LABELS))

    def read(content: tuple[bytes, bytes]) -> None:
        (tmp_path / "set/data.yaml").write_bytes(content[0])
        (tmp_path / "set/labels/a.txt").write_bytes(content[1])
        converts(lambda: read_yolo(tmp_path / "set"))

    campaign.run(case, read, cases=100, names=str(tmp_path))


def test_coco_exports(campaign: Any, damaged_json: Any, converts: Any, tmp_path: Path) -> None:
    picture(tmp_path / "set/train/a.png")

    def read(content: bytes) -> None:
        (tmp_path / "set/train/_annotations.coco.json").write_bytes(content)
        converts(lambda: read_coco_export(tmp_path / "set"))

    campaign.run(lambda rng: damaged_json(rng, COCO), read, cases=100, names=str(tmp_path))
