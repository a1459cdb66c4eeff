"""Masks of other kinds turned into index maps: colours, black and white, COCO's panoptic PNGs."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from files.parsing import read_json
from segmentation.data.classes import Classes, read_class_list
from segmentation.data.convert import colours_to_labels, read_colours, write_labels
from segmentation.data.layout import open_folder
from segmentation.data.panoptic import convert_panoptic, panoptic_to_labels
from tests.pixel_files import chunk, png
from tools.make_semantic import main

CLASSES = Classes(("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))


def test_colours_by_hand_and_back() -> None:
    label = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], dtype=np.uint8)
    rgb = np.array([*CLASSES.palette, (9, 9, 9)], dtype=np.uint8)[np.where(label == 255, 3, label)]  # type: ignore[misc]
    np.testing.assert_array_equal(colours_to_labels(rgb, CLASSES, Path("a.png"), ignore=(9, 9, 9)), label)
    with pytest.raises(ValueError, match=r"a.png: 1 colours stand for no class: #090909 \(1 pixels\). Add them"):
        colours_to_labels(rgb, CLASSES, Path("a.png"))


def test_class_lists_that_cannot_convert() -> None:
    rgb = np.zeros((1, 1, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="the class list has no colours"):
        colours_to_labels(rgb, Classes(("a", "b"), None), Path("a.png"))
    with pytest.raises(ValueError, match="two classes have the same colour"):
        colours_to_labels(rgb, Classes(("a", "b"), ((0, 0, 0), (0, 0, 0))), Path("a.png"))


def test_tool_converts_black_and_white_masks(tmp_path: Path, capsys) -> None:
    masks = tmp_path / "masks" / "deep"
    masks.mkdir(parents=True)
    Image.fromarray(np.array([[0, 255, 255]], dtype=np.uint8)).save(masks / "a.png")
    Image.fromarray(np.array([[True, False, True]])).save(masks / "b.bmp")
    (tmp_path / "classes.txt").write_text("background\t#000000\nobject\t#ffffff\n")
    flags = ["--source", str(tmp_path / "masks"), "--palette", str(tmp_path / "classes.txt")]
    assert main(["colours", *flags, "--out", str(tmp_path / "labels")]) == 0
    assert "2 label maps written" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "labels" / "deep" / "a.png")).tolist() == [[0, 1, 1]]
    assert np.asarray(Image.open(tmp_path / "labels" / "deep" / "b.png")).tolist() == [[1, 0, 1]]
    assert main(["colours", *flags, "--out", str(tmp_path / "labels")]) == 1
    assert "a.png: exists already; give a new --out." in capsys.readouterr().err


def test_labels_keep_their_numbers_under_a_palette(tmp_path: Path) -> None:
    label = np.array([[0, 2, 255]], dtype=np.uint8)
    image = Image.open(write_labels(tmp_path / "a.png", label, np.array(CLASSES.palette)))
    np.testing.assert_array_equal(np.asarray(image), label)
    assert np.asarray(image.convert("RGB"))[0].tolist() == [[128, 64, 128], [0, 0, 142], [0, 0, 0]]


def test_panoptic_png_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[(0, 0, 0), (1, 2, 0), (0, 0, 1)]], dtype=np.uint8)).save(path)
    assert panoptic_to_labels(path, {1 + 2 * 256: 5, 65536: 0}).tolist() == [[255, 5, 0]]
    with pytest.raises(ValueError, match=r"a.png: holds segments that the JSON does not list: 65536"):
        panoptic_to_labels(path, {1 + 2 * 256: 5})


def test_genuine_panoptic_becomes_a_semantic_set(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "coco_genuine"
    annotations = root / "annotations" / "panoptic_train2017.json"
    for split in ("train", "val"):
        count = convert_panoptic(
            annotations, root / "panoptic_train2017", root / "train2017", tmp_path / "out", split=split
        )
        assert count == 28
    folder = open_folder(tmp_path / "out", "folder")
    assert len(folder.classes.names) == 133 and folder.classes.names[0] == "person"
    assert "81 of 133 classes occur" in folder.notes[0]
    # the pixels of every class are the areas that the JSON states of its segments
    content = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    stated: Counter[str] = Counter()
    for entry in content["annotations"]:
        for segment in entry["segments_info"]:
            stated[names[segment["category_id"]]] += segment["area"]
    found: Counter[str] = Counter()
    for pair in folder.train.pairs:
        for value, pixels in zip(*np.unique(np.asarray(Image.open(pair.labels)), return_counts=True), strict=True):
            if value != 255:
                found[folder.classes.names[value]] += int(pixels)
    assert found == stated


def test_panoptic_refused(real_data: Path, tmp_path: Path, capsys) -> None:
    root = real_data / "coco_genuine"
    flags = ["--pngs", str(root), "--images", str(root / "none"), "--out", str(tmp_path)]
    instances = root / "annotations" / "instances_train2017.json"
    assert main(["panoptic", "--annotations", str(instances), *flags]) == 1
    assert "instances_train2017.json: no panoptic annotations (no segments_info)" in capsys.readouterr().err
    panoptic = root / "annotations" / "panoptic_train2017.json"
    assert main(["panoptic", "--annotations", str(panoptic), *flags]) == 1
    assert "not there, though panoptic_train2017.json names it; --images holds the images." in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    first = f"{read_json(panoptic)['annotations'][0]['image_id']:012d}.jpg"
    (tmp_path / "images" / first.replace(".jpg", ".JPG")).touch()
    assert main(["panoptic", "--annotations", str(panoptic), *flags, "--images", str(tmp_path / "images")]) == 1
    assert f"; for '{first}' there is '{first[:-4]}.JPG', which differs in its case (1 of " in capsys.readouterr().err
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_class_list(tmp_path / "classes.txt").names == ("a", "b")
    assert main(["panoptic", "--annotations", str(panoptic), *flags]) == 1
    assert "classes.txt: lists other classes than this JSON" in capsys.readouterr().err


def test_colours_are_those_that_the_file_stores(tmp_path: Path) -> None:
    def read(values: np.ndarray, bits: int, **more) -> list:
        (tmp_path / "a.png").write_bytes(png(values, bits, **more))
        return read_colours(tmp_path / "a.png").tolist()

    rgb = np.array([[[1, 2, 3], [255, 0, 9]]])
    assert read(rgb, 8, colour=2) == rgb.tolist()
    assert read(rgb * 257, 16, colour=2) == rgb.tolist()
    assert read(rgb * 256, 16, colour=2) == rgb.tolist()
    assert read(np.array([[0, 1]]), 1, colour=3, extra=chunk(b"PLTE", bytes([7, 8, 9, 1, 2, 3]))) == [
        [[7, 8, 9], [1, 2, 3]]
    ]
    assert read(np.array([[0, 1, 2, 3]]), 2) == [[[0] * 3, [85] * 3, [170] * 3, [255] * 3]]
    assert read(np.array([[0, 65535]]), 16) == read(np.array([[0, 255]]), 16) == [[[0] * 3, [255] * 3]]
    for colour, values in ((2, rgb * 257 + 1), (2, rgb), (0, np.array([[1, 300]]))):
        with pytest.raises(
            ValueError, match=r"a\.png: colours of more than 8 bits \(uint16, up to \d+\), which 8 bits"
        ):
            read(values, 16, colour=colour)


def test_a_colour_to_ignore_that_is_none() -> None:
    with pytest.raises(ValueError, match="--ignore 256 0 0: red, green and blue must be from 0 to 255"):
        colours_to_labels(np.zeros((1, 1, 3), dtype=np.uint8), CLASSES, Path("a.png"), ignore=(256, 0, 0))


def test_large_masks_are_converted_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (37, 11)).astype(np.uint8)
    rgb = np.array(CLASSES.palette, dtype=np.uint8)[label]
    rgb[3, 4], rgb[30:32, 1] = (1, 2, 3), (9, 9, 9)
    for at_once in (1, 40, 10**6):
        monkeypatch.setattr("segmentation.data.convert.AT_ONCE", at_once)
        with pytest.raises(ValueError, match=r"2 colours stand for no class: #090909 \(2 pixels\), #010203 \(1 pixels"):
            colours_to_labels(rgb, CLASSES, Path("a.png"))
        found = colours_to_labels(np.array(CLASSES.palette, dtype=np.uint8)[label], CLASSES, Path("a.png"))
        np.testing.assert_array_equal(found, label)
