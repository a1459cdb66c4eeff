"""Reading of COCO files: what is kept, dropped, counted and refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.coco import annotation_file, check_same_categories, read_coco

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def annotation(number: int, image: int = 1, **changes: Any) -> dict[str, Any]:
    base = {
        "id": number,
        "image_id": image,
        "category_id": 3,
        "bbox": [10, 10, 20, 20],
        "area": 400.0,
        "iscrowd": 0,
    }
    return {**base, "segmentation": SQUARE, **changes}


def write(root: Path, annotations: list[dict[str, Any]], *, split: str = "train", **changes: Any) -> Path:
    """Write three 64x48 images (width x height) and their annotations; return the JSON's path."""
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8)).save(root / split / f"{number}.jpg")
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (3, 1, 2)],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "kite"}, {"id": 3, "name": "car"}],
        **changes,
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def read(root: Path, annotations: list[dict[str, Any]], **changes: Any) -> Any:
    return read_coco(write(root, annotations, **changes), data=root, split="train")


def test_ids_are_remapped_and_images_sorted(tmp_path: Path) -> None:
    split = read(tmp_path, [annotation(7, category_id=90), annotation(9, image=2)])
    assert [record["image_id"] for record in split.records] == [1, 2, 3]
    assert [(c.id, c.name) for c in split.categories] == [(3, "car"), (90, "kite")]
    assert [a["category_id"] for record in split.records for a in record["annotations"]] == [1, 0]
    assert [a["category_id"] for a in split.ground_truth["annotations"]] == [90, 3]
    assert [a["id"] for a in split.ground_truth["annotations"]] == [1, 2]
    assert split.masks and split.notes == ()


def test_bad_boxes_are_counted_and_dropped_or_clipped(tmp_path: Path) -> None:
    split = read(
        tmp_path,
        [
            annotation(1),
            annotation(2, bbox=[10, 10, 0, 5]),
            annotation(3, bbox=[64, 0, 10, 10]),
            annotation(4, bbox=[60, 40, 10, 20]),
            annotation(5, bbox=[54, 38, 10.5, 10.5]),  # within COCO's own rounding
            annotation(6, segmentation=[[1, 1, 2, 2]]),
            annotation(7, image=99),
        ],
    )
    boxes = [a["bbox"] for a in split.ground_truth["annotations"]]
    assert boxes == [[10, 10, 20, 20], [60, 40, 4, 8], [54, 38, 10.5, 10.5]]
    assert split.notes == (
        "train: boxes of no size, dropped: 1 (annotation 2 of 1.jpg: 0x5)",
        "train: boxes outside of their image, dropped: 1 (annotation 3 of 1.jpg: x 64, y 0)",
        "train: boxes partly outside of their image, clipped: 1 (annotation 4 of 1.jpg)",
        "train: annotations without a polygon of 3 points or more, dropped: 1 (annotation 6 of 1.jpg)",
        "train: annotations of images that the file does not list, dropped: 1 (annotation 7)",
    )


def test_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; --data is the folder that holds train2017/"):
        annotation_file(tmp_path / "no", "train2017", None)


def test_missing_annotations_say_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, [annotation(1)])
    with pytest.raises(FileNotFoundError) as error:
        annotation_file(tmp_path, "train2017", None)
    assert "instances_train2017.json: no such annotation file" in str(error.value)
    assert "holds instances_train.json" in str(error.value)
    assert "holds annotations/, train/" in str(error.value)
    assert "--train-split" in str(error.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds nothing"):
        annotation_file(tmp_path, "train2017", None)


def test_truncated_json_names_file_and_position(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"instances_train\.json: not valid JSON .*char.*200 bytes and may be"):
        read_coco(path, data=tmp_path, split="train")


def test_json_of_another_format(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    path.write_text("[]")
    with pytest.raises(ValueError, match="no list 'images' at the top level"):
        read_coco(path, data=tmp_path, split="train")


def test_image_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    (tmp_path / "train" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 1 of 3 images that are not in .*train: 2\.jpg"):
        read_coco(path, data=tmp_path, split="train")


def test_missing_image_folder_lists_where_it_looked(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    (tmp_path / "train").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match=r"looked for 1\.jpg.*holds annotations/, pictures/"):
        read_coco(path, data=tmp_path, split="train")


def test_images_beside_an_explicit_file(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    moved = tmp_path / "train" / "_annotations.coco.json"
    path.rename(moved)
    assert annotation_file(tmp_path, "train2017", str(moved)) == moved
    split = read_coco(moved, data=tmp_path, split="train2017")
    assert split.records[0]["file_name"] == str(tmp_path / "train" / "1.jpg")


def test_unlisted_category(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotation 1 has category_id 4, which .* lists 3, 90"):
        read(tmp_path, [annotation(1, category_id=4)])


def test_box_that_is_no_box(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bbox \[1, 2, 3\]; it must be four numbers"):
        read(tmp_path, [annotation(1, bbox=[1, 2, 3])])


def test_run_lengths_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run lengths for an image of \[64, 48\].*the image is \[48, 64\]"):
        read(tmp_path, [annotation(1, segmentation={"size": [64, 48], "counts": [0, 10, 3062]})])


def test_some_masks_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 2 annotations have a segmentation"):
        read(tmp_path, [annotation(1), annotation(2, segmentation=[])])


def test_no_masks(tmp_path: Path) -> None:
    assert not read(tmp_path, [annotation(1, segmentation=[])]).masks


def test_no_usable_annotation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 3 images and no annotation that can be used"):
        read(tmp_path, [annotation(1, bbox=[0, 0, 0, 0])])


def test_categories_that_differ(tmp_path: Path) -> None:
    train = read(tmp_path, [annotation(1)])
    changed = [{"id": 3, "name": "car"}, {"id": 90, "name": "dragon"}]
    path = write(tmp_path, [annotation(1)], split="val", categories=changed)
    val = read_coco(path, data=tmp_path, split="val")
    with pytest.raises(ValueError, match="only in training 90 kite; only in validation 90 dragon"):
        check_same_categories(train, val)


def test_real_files_need_no_repair(real_data: Path) -> None:
    root = real_data / "det_coco"
    for split, images, boxes in (("train", 196, 1750), ("val", 51, 400)):
        path = root / "annotations" / f"instances_{split}_super12.json"
        found = read_coco(path, data=root, split=split)
        assert (len(found.records), len(found.ground_truth["annotations"])) == (images, boxes)
        assert len(found.categories) == 12 and found.masks and found.notes == ()
