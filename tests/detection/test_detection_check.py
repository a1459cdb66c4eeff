"""The look at a data set: what is counted, what is a fault, and the contact sheet."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.data.check import check_coco

BOX = {"category_id": 1, "bbox": [4, 4, 20, 20], "area": 400.0, "iscrowd": 0}


def write(root: Path, split: str, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    """Write three images of 64x48 pixels (width x height) and their annotations."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.fromarray(np.full((48, 64, 3), 60 * number, np.uint8)).save(root / split / f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in (1, 2, 3)],
        "annotations": [{"id": n, **BOX, **a} for n, a in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "kite"}],
        **changes,
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def test_counts_and_defects(tmp_path: Path) -> None:
    write(tmp_path, "train", [{"image_id": 1}, {"image_id": 2, "iscrowd": 1}, {"image_id": 2, "bbox": [0, 0, 0, 1]}])
    write(tmp_path, "val", [{"image_id": 1}])
    found = check_coco(tmp_path, files=(), sheet=tmp_path / "sheet.png")
    text = "\n".join(found.lines)
    assert found.faults == () and found.lines[-1] == "no faults found; see the 2 notes above"
    assert "note: images that another file lists too, by their content: 3 of 3 (1.png, also in instances_train" in text
    assert f"3 images in {tmp_path / 'train'}, 2 of them without an object" in text
    assert "1 objects (1 in an image at most) and 1 crowds" in text
    assert "images of 64 x 48 pixels (width x height), 1 sizes" in text
    assert "0 small, 0 medium" not in text and "1 small, 0 medium, 0 large" in text
    assert "boxes of no size, dropped: 1 (annotation 3 of 2.png: 0x1)" in text
    assert "kite" in text and "0  none: it cannot be learnt or scored" in text
    assert "no masks: boxes alone are trained and scored" in text
    assert found.sheet == tmp_path / "sheet.png" and Image.open(found.sheet).size == (1280, 640)


def test_faults_of_images_are_all_listed(tmp_path: Path) -> None:
    write(tmp_path, "train", [{"image_id": 1}])
    (tmp_path / "train" / "1.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(tmp_path / "train" / "2.png")
    found = check_coco(tmp_path, files=(), sheet=tmp_path / "sheet.png")
    assert len(found.faults) == 2
    assert "1 images cannot be read: 1.png (cannot identify" in found.faults[0]
    assert (
        "have another size than stated: 2.png is 48x64, stated 64x48. The annotations have width and height exchanged"
        in found.faults[1]
    )
    assert found.sheet is not None and found.sheet.is_file()


def test_a_file_that_cannot_be_read_does_not_hide_the_next(tmp_path: Path) -> None:
    write(tmp_path, "train", [{"image_id": 1, "category_id": 9}])
    write(tmp_path, "val", [{"image_id": 1}], categories=[{"id": 1, "name": "plane"}])
    found = check_coco(tmp_path, files=(), sheet=tmp_path / "sheet.png")
    assert len(found.faults) == 1 and "annotation 1 has category_id 9" in found.faults[0]
    assert any("plane" in line for line in found.lines)


def test_other_classes_are_noted(tmp_path: Path) -> None:
    write(tmp_path, "train", [{"image_id": 1}])
    write(tmp_path, "val", [{"image_id": 1}], categories=[{"id": 1, "name": "plane"}])
    lines = check_coco(tmp_path, files=(), sheet=tmp_path / "sheet.png").lines
    assert any(line.startswith("instances_val.json: other classes than instances_train.json") for line in lines)


def test_named_files_and_nothing_there(tmp_path: Path) -> None:
    path = write(tmp_path, "train", [{"image_id": 1}])
    moved = path.rename(tmp_path / "mine.json")
    with pytest.raises(FileNotFoundError, match=r"holds no instances_<split>\.json; name the files with --annotations"):
        check_coco(tmp_path, files=(), sheet=tmp_path / "sheet.png")
    (tmp_path / "train").rename(tmp_path / "mine")
    assert check_coco(tmp_path, files=(moved,), sheet=tmp_path / "sheet.png").faults == ()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_coco(tmp_path / "no", files=(), sheet=tmp_path / "sheet.png")


@pytest.mark.parametrize("name", ["det_bccd", "coco_genuine"])
def test_real_data_have_no_fault(name: str, real_data: Path, tmp_path: Path) -> None:
    found = check_coco(real_data / name, files=(), sheet=tmp_path / "sheet.png")
    assert found.faults == () and found.sheet is not None
