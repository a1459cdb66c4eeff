"""Which images have one object of a class, and its pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.data.coco import CocoSplit, read_coco
from detection.data.objects import single_objects

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]  # 4 x 4 of 10 x 10 pixels


def written(folder: Path, annotations: list[dict[str, Any]], images: int = 3) -> CocoSplit:
    (folder / "train").mkdir()
    for number in range(1, images + 1):
        Image.new("RGB", (10, 10)).save(folder / "train" / f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 10, "height": 10} for n in range(1, images + 1)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"id": n, **each} for n, each in enumerate(annotations, start=1)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return read_coco(folder / "a.json", data=folder, split="train")


def one(image: int, category: int, crowd: int = 0, **given: Any) -> dict[str, Any]:
    box = {"bbox": [2, 2, 4, 4], "area": 16, "segmentation": SQUARE}
    return {"image_id": image, "category_id": category, "iscrowd": crowd, **box, **given}


def test_one_object_of_a_class(tmp_path: Path) -> None:
    split = written(
        tmp_path,
        [
            one(1, 3), one(1, 7), one(1, 7, bbox=[2, 2, 4, 5]),  # one cat, two dogs
            one(2, 3), one(2, 3, 1, segmentation={"size": [10, 10], "counts": [22, 4, 74]}),  # and a crowd of cats
            one(3, 7, area=4, segmentation=[[2, 2, 4, 2, 4, 4, 2, 4]]),
        ],
    )  # fmt: skip
    found = single_objects(split, boxes=False, least_area=0.05, most_area=0.5)
    assert [each.name for each in found[0]] == ["1.png"] and found[1] == []
    (cat,) = found[0]
    assert cat.box == (2, 2, 4, 4) and cat.size == (10, 10) and cat.path == tmp_path / "train" / "1.png"
    expected = np.zeros((10, 10), dtype=bool)
    expected[2:6, 2:6] = True
    assert np.array_equal(cat.mask(), expected)
    small = single_objects(split, boxes=False, least_area=0.04, most_area=0.5)[1]
    assert [each.name for each in small] == ["3.png"]
    assert single_objects(split, boxes=False, least_area=0.01, most_area=0.15)[0] == []
    # its box is larger than its mask
    boxes = single_objects(split, boxes=True, least_area=0.16, most_area=0.5)
    assert [each.name for each in boxes[1]] == ["3.png"] and np.array_equal(boxes[1][0].mask(), expected)


def test_masks_of_a_split_without_segmentations(tmp_path: Path) -> None:
    annotations = [{k: v for k, v in one(1, 3).items() if k != "segmentation"}]
    split = written(tmp_path, annotations)
    assert len(single_objects(split, boxes=True, least_area=0.1, most_area=0.5)[0]) == 1
    with pytest.raises(ValueError, match=r"a\.json: its annotations have no segmentations; --prompt box"):
        single_objects(split, boxes=False, least_area=0.1, most_area=0.5)
