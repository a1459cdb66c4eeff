"""COCO exports of Roboflow and CVAT: where they keep images, the class that is none, what is counted and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversion.coco_exports import read_coco_export
from conversion.coco_layout import write_coco

CATEGORIES = [
    {"id": 0, "name": "cells-x1", "supercategory": "none"},
    {"id": 1, "name": "red", "supercategory": "cells-x1"},
    {"id": 2, "name": "white", "supercategory": "cells-x1"},
]
ANNOTATION = {"id": 0, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4.5], "area": 13.5, "iscrowd": 0}


def content(**changes: Any) -> dict[str, Any]:
    image = {"id": 7, "file_name": "a.png", "width": 40, "height": 20, "license": 1, "date_captured": "2024"}
    return {"images": [image], "categories": CATEGORIES, "annotations": [{**ANNOTATION, "segmentation": []}], **changes}


@pytest.fixture
def roboflow(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    for folder in ("train", "valid"):
        draw(tmp_path / "set" / folder / "a.png")
        (tmp_path / "set" / folder / "_annotations.coco.json").write_text(json.dumps(content()))
    return tmp_path / "set"


def test_roboflow(roboflow: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    lines = write_coco(read_coco_export(roboflow), tmp_path / "out")
    for split in ("train2017", "val2017"):
        assert objects(tmp_path / "out", split) == [("a.png", "white", [1, 2, 3, 4.5], 0, None)]
    written = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert written["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "white"}]
    assert written["annotations"][0]["area"] == 13.5
    assert sorted(lines) == [
        "`date_captured` of images, left out: 2 (_annotations.coco.json: 7, _annotations.coco.json: 7)",
        "`license` of images, left out: 2 (_annotations.coco.json: 7, _annotations.coco.json: 7)",
        "classes without an object that are the group of others (Roboflow's first), left out: 1 (cells-x1)",
        "train2017: 1 images of split 'train', 0 of them without an object; 1 objects",
        "val2017: 1 images of split 'valid', 0 of them without an object; 1 objects",
    ]


def test_a_class_that_is_its_own_group_stays(roboflow: Path, tmp_path: Path) -> None:
    """As COCO's person, which a part of the data may have no object of."""
    categories = [{"id": 1, "name": "person", "supercategory": "person"}, *CATEGORIES[2:]]
    for folder in ("train", "valid"):
        (roboflow / folder / "_annotations.coco.json").write_text(json.dumps(content(categories=categories)))
    write_coco(read_coco_export(roboflow), tmp_path / "out")
    written = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    assert [category["name"] for category in written["categories"]] == ["person", "white"]


def test_cvat_with_masks_and_attributes(tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]) -> None:
    square = [[1, 1, 4, 1, 4, 4, 1, 4]]
    runs = {"size": [20, 40], "counts": [21, 2, 777]}  # the second column's pixels 1 and 2
    annotations = [
        {**ANNOTATION, "category_id": 1, "segmentation": square, "attributes": {"occluded": False}},
        {**ANNOTATION, "category_id": 2, "segmentation": runs, "iscrowd": 1, "area": None},
        {**ANNOTATION, "image_id": 8},
    ]
    images = [*content()["images"], {"id": 9, "file_name": "gone.png", "width": 1, "height": 1}]
    draw(tmp_path / "set/images/default/a.png")
    (tmp_path / "set/annotations").mkdir()
    path = tmp_path / "set/annotations/instances_default.json"
    path.write_text(json.dumps(content(annotations=annotations, categories=CATEGORIES[1:], images=images)))
    lines = write_coco(read_coco_export(tmp_path / "set"), tmp_path / "out")
    first, second = objects(tmp_path / "out", "train2017")
    assert first == ("a.png", "red", [1, 2, 3, 4.5], 0, square)
    assert second == ("a.png", "white", [1, 2, 3, 4.5], 1, runs)
    written = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())["annotations"]
    assert [raw["area"] for raw in written] == [13.5, 2]
    text = "\n".join(lines)
    assert "2 objects, 1 of them crowds, all with a mask" in text
    assert "`attributes` of annotations, left out: 1" in text
    assert "annotations of images that the file does not list, left out: 1" in text
    assert "images that are not there, left out with their annotations: 1 (instances_default.json: gone.png)" in text


def test_classes_of_several_files_become_one_list(roboflow: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    other = content(categories=[{"id": "w", "name": "white"}], annotations=[{**ANNOTATION, "category_id": "w"}])
    (roboflow / "valid/_annotations.coco.json").write_text(json.dumps(other))
    write_coco(read_coco_export(roboflow), tmp_path / "out")
    assert [found[1] for split in ("train2017", "val2017") for found in objects(tmp_path / "out", split)] == [
        "white"
    ] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "not in COCO's format: no list 'images'"),
        ({"categories": []}, "categories"),
        ({"categories": [{"id": 1}]}, "an entry of kind category has no 'name'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "no id and no name may come twice"),
        ({"annotations": [{**ANNOTATION, "category_id": 9}]}, "has category_id 9; `categories` lists 0, 1, 2"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, 3]}]}, r"has bbox \[1, 2, 3\]; it must be four numbers"),
        ({"annotations": [{**ANNOTATION, "iscrowd": 2}]}, "has iscrowd 2; it must be 0 or 1"),
        (
            {"annotations": [{**ANNOTATION, "segmentation": [[1, 2, "x"]]}]},
            "an object of a.png has a segmentation that is no",
        ),
        (
            {"annotations": [{**ANNOTATION, "segmentation": {"size": [1, 1], "counts": [1]}}]},
            "has run lengths for an image",
        ),
        ({"annotations": [{}]}, "has no 'category_id'"),
        ({"images": [{"id": 7, "file_name": "../a.png"}]}, "names '../a.png', which is not a path inside"),
        ({"images": [{"id": 7, "file_name": 3}]}, "names 3, which is not a path inside"),
        ({"images": content()["images"] * 2}, "`images` lists the id 7 more than once"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, roboflow: Path, tmp_path: Path) -> None:
    (roboflow / "train/_annotations.coco.json").write_text(json.dumps(content(**changes)))
    with pytest.raises(ValueError, match=message) as caught:
        write_coco(read_coco_export(roboflow), tmp_path / "out")
    assert "_annotations.coco.json" in str(caught.value) and not (tmp_path / "out").exists()


def test_other_layouts_are_refused(tmp_path: Path, roboflow: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder. Looked for <split>/_annotations.coco.json"):
        read_coco_export(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds set. Looked for"):
        read_coco_export(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    with pytest.raises(FileExistsError, match=r"full: is there already; give a new --out, or remove it"):
        write_coco(read_coco_export(roboflow), tmp_path / "full")
    assert (tmp_path / "full/mine").exists()
