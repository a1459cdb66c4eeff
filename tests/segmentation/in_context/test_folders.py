"""Examples in a folder, with masks or boxes, and what is said of those that are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.in_context.folders import examples_in
from segmentation.in_context.images import read_example


def image(path: Path, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (20, 16), value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = np.zeros(size[::-1], dtype=np.uint8)
    made[:4, :5] = value
    Image.fromarray(made).save(path)
    return path


def test_masks_beside_and_in_a_folder_of_their_own(tmp_path: Path) -> None:
    image(tmp_path / "a/x.jpg"), mask(tmp_path / "a/x.png")
    image(tmp_path / "a/y.jpg", (30, 40)), mask(tmp_path / "a/y.png", (30, 40), value=1)
    image(tmp_path / "b/x.png"), mask(tmp_path / "b/masks/x.png")
    found = examples_in(tmp_path / "a")
    assert [each.name for each in found] == ["x.jpg", "y.jpg"]
    assert [each.mask().shape for each in found] == [(16, 20), (40, 30)]
    assert [int(each.mask().sum()) for each in (*found, *examples_in(tmp_path / "b"))] == [20, 20, 20]
    # of other sizes, they are resized to one
    assert {read_example(each, (8, 8)).image.size for each in found} == {(8, 8)}


def test_boxes_in_the_form_of_the_answers(tmp_path: Path) -> None:
    image(tmp_path / "x.jpg")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image": "x.jpg", "box": [2, 1, 4, 3], "foreground_share": 0.1}]))
    (found,) = examples_in(tmp_path)
    assert np.argwhere(found.mask()).min(axis=0).tolist() == [1, 2] and found.mask().sum() == 12
    for content, words in (
        ([{"image": "x.jpg", "box": None}], r"boxes\.json: .* is no box; give a list of"),
        ({"x.jpg": [0, 0, 1, 1]}, "is no box; give a list of"),
        ([{"image": "x.jpg", "box": [0, 0, 0, 1]}], "is no box"),
        ([{"image": "x.jpg", "box": [0, 0, 1, True]}], "is no box"),
        ([], "'x.jpg' has no box in it"),
        ([{"image": n, "box": [0, 0, 1, 1]} for n in ("x.jpg", "X.JPG")], "'X.JPG' is no image in"),
        ([{"image": "x.jpg", "box": [0, 0, 1, 1]}] * 2, "names 'x.jpg' twice"),
    ):
        boxes.write_text(json.dumps(content))
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            examples_in(tmp_path)


def test_an_example_without_a_mask_or_of_nothing(tmp_path: Path) -> None:
    path = image(tmp_path / "a/x.jpg")
    with pytest.raises(FileNotFoundError, match=r"x\.jpg: has no mask; a PNG .*masks/x\.png"):
        examples_in(tmp_path / "a")
    mask(tmp_path / "a/masks/X.png")
    with pytest.raises(FileNotFoundError, match="which differs in its case"):
        examples_in(tmp_path / "a")
    mask(path.with_name("masks") / "x.png", value=0)
    with pytest.raises(ValueError, match=r"x\.jpg: its mask has no foreground pixel"):
        read_example(examples_in(tmp_path / "a")[0], (8, 8))
    mask(path.with_name("masks") / "x.png", size=(16, 20))
    with pytest.raises(ValueError, match=r"the image is 20x16 pixels \(width x height\), its mask 16x20"):
        read_example(examples_in(tmp_path / "a")[0], (8, 8))
    Image.new("RGB", (20, 16)).save(path.with_name("masks") / "x.png")
    with pytest.raises(ValueError, match="mode RGB"):
        read_example(examples_in(tmp_path / "a")[0], (8, 8))
    image(tmp_path / "b/only.png")
    with pytest.raises(FileNotFoundError, match=r"only\.png: has no mask"):
        examples_in(tmp_path / "b")
    image(tmp_path / "c/below/x.jpg")
    with pytest.raises(FileNotFoundError, match="holds no image of its own"):
        examples_in(tmp_path / "c")
