"""Cityscapes, PASCAL VOC, COCO-Stuff and plain folders: which file goes with which, and which number is which class."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.data.classes import (
    Classes,
    cityscapes_ids,
    coco_stuff_ids,
    read_class_list,
    write_class_list,
)
from segmentation.data.labels import IGNORED
from segmentation.data.layout import LAYOUTS, SegmentationFolder, open_folder
from segmentation.data.mapping import PairedImages, val_pipeline


def write(root: Path, maps: Mapping[str, list[int]], images: list[str]) -> None:
    """Write label maps of one row and black images of the same size."""
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 1)).save(root / name)
    for name, row in maps.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([row], dtype=np.uint8)).save(root / name)


def decoded(folder: SegmentationFolder, index: int = 0) -> list[int]:
    """The classes of a training image's row."""
    data = PairedImages(folder.train.pairs, folder.classes, val_pipeline(folder.train.label_mapping, resize=(8, 8)))
    return data[index]["data_samples"].gt_sem_seg.data[0, 0].tolist()


def cityscapes(root: Path, kind: str, row: list[int]) -> Path:
    """Write one image a split."""
    for split in ("train", "val"):
        stem = f"{split}/ulm/ulm_000000_000019"
        write(root, {f"gtFine/{stem}_gtFine_{kind}.png": row}, [f"leftImg8bit/{stem}_leftImg8bit.png"])
    return root


def test_cityscapes_train_ids(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, "labelTrainIds", [0, 18, 255, 1])
    cityscapes(tmp_path, "labelIds", [33, 33, 33, 33])  # the data set has both; train ids go first
    cityscapes(tmp_path, "color", [0, 0, 0, 0])
    folder = open_folder(root, "cityscapes")
    assert [pair.image_id for pair in folder.train.pairs] == ["ulm/ulm_000000_000019_leftImg8bit.png"]
    assert folder.classes.names[0] == "road" and folder.classes.names[18] == "bicycle"
    assert decoded(folder) == [0, 18, 255, 1]


def test_cityscapes_label_ids_are_mapped(tmp_path: Path) -> None:
    folder = open_folder(cityscapes(tmp_path, "labelIds", [7, 33, 0, 26]), "cityscapes")
    assert decoded(folder) == [0, 18, 255, 13]  # road, bicycle, unlabelled, car
    table = cityscapes_ids().table
    assert sorted(c for c in table if 0 <= c < IGNORED) == list(range(19))
    assert (table[29], table[33], table[34]) == (IGNORED, 18, -1)  # caravan, bicycle, nothing


def test_cityscapes_number_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"labelTrainIds.png: holds label 19, but the data set has 19 classes \(labels 0"
    ):
        open_folder(cityscapes(tmp_path, "labelTrainIds", [0, 19, 1, 1]), "cityscapes")


def test_label_maps_of_two_kinds(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, "labelTrainIds", [0, 1, 1, 1])
    stem = "train/bonn/bonn_000000_000019"
    write(root, {f"gtFine/{stem}_gtFine_labelIds.png": [7, 7, 7, 7]}, [f"leftImg8bit/{stem}_leftImg8bit.png"])
    message = r"1 of 2 images have no label map \(bonn/bonn_000000_000019\) and 0 of 1"
    with pytest.raises(ValueError, match=message):
        open_folder(root, "cityscapes")


def voc(root: Path) -> Path:
    """Write two splits of one image, and a third image that neither lists."""
    for name, row in (("2007_000001", [0, 15, 255, 20]), ("2007_000002", [0, 1, 1, 1]), ("2007_000003", [0, 1, 1, 1])):
        write(root, {f"SegmentationClass/{name}.png": row}, [f"JPEGImages/{name}.jpg"])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    return root


def test_voc(tmp_path: Path) -> None:
    folder = open_folder(voc(tmp_path), "voc")
    assert [pair.image_id for pair in folder.train.pairs] == ["2007_000001.jpg"]
    assert len(folder.classes.names) == 21 and folder.classes.names[15] == "person"
    assert decoded(folder) == [0, 15, 255, 20]
    folder = open_folder(tmp_path, "voc", train="val")
    assert (folder.train.name, folder.train.pairs[0].image_id) == ("val", "2007_000002.jpg")


def test_voc_refused(tmp_path: Path) -> None:
    root = voc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"trainval.txt: no such split; there are train, val"):
        open_folder(root, "voc", train="trainval")
    with pytest.raises(FileNotFoundError, match=r"looked for JPEGImages and SegmentationClass .*VOC2012/"):
        (tmp_path / "kit" / "VOC2012").mkdir(parents=True)
        open_folder(tmp_path / "kit", "voc")
    (root / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 images have no label map \(2007_000001\)"):
        open_folder(root, "voc")
    (root / "JPEGImages" / "2007_000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train.txt: 1 of 1 images are missing \(2007_000001\)"):
        open_folder(root, "voc")


@pytest.mark.parametrize(("suffix", "row"), [("_labelTrainIds", [0, 11, 255, 170]), ("", [0, 12, 255, 181])])
def test_coco_stuff(tmp_path: Path, suffix: str, row: list[int]) -> None:
    for split in ("train2017", "val2017"):
        write(tmp_path, {f"annotations/{split}/9{suffix}.png": row}, [f"images/{split}/9.jpg"])
    folder = open_folder(tmp_path, "coco_stuff")
    assert len(folder.classes.names) == 171
    assert decoded(folder) == [0, 11, 255, 170]
    assert folder.classes.names[11] == "stop sign"  # COCO's category 13: number 12 of the pixel maps


def test_coco_stuff_numbers_as_in_mmseg() -> None:
    # rows of clsID_to_trID in mmseg's tools/dataset_converters/coco_stuff164k.py
    table = coco_stuff_ids().table
    assert [table[value] for value in (10, 12, 24, 26, 91, 181, 255)] == [10, 11, 23, 24, 80, 170, 255]
    assert table[11] == table[90] == table[182] == -1
    assert sorted(c for c in table if 0 <= c < IGNORED) == list(range(171))


def folder_layout(root: Path, names: str = "background\ncat\n") -> Path:
    """Write one image a split and a class list."""
    for split in ("train", "val"):
        write(root, {f"labels/{split}/a.png": [0, 1, 255, 1]}, [f"images/{split}/a.bmp"])
    (root / "classes.txt").write_text(names)
    return root


def test_folder(tmp_path: Path) -> None:
    folder = open_folder(folder_layout(tmp_path), "folder")
    assert folder.classes == Classes(("background", "cat"), None)
    assert decoded(folder) == [0, 1, 255, 1]
    assert folder.notes == ("2 label maps read: 2 of 2 classes occur",)


def test_class_list_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for classes in (Classes(("sky", "tree, bush"), None), Classes(("a b", "c"), ((0, 10, 255), (1, 2, 3)))):
        write_class_list(path, classes)
        assert read_class_list(path) == classes
    assert path.read_text() == "a b\t#000aff\nc\t#010203\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no class; write one name a line"),
        ("\n\n", "lists no class"),
        ("cat\ncat\n", "lists cat more than once"),
        ("cat\t#ff0000\ndog\n", "'' is no colour; write #rrggbb behind every name"),
        ("cat\tred\n", "'red' is no colour"),
        ("cat\n", r"1 class\(es\); segmentation needs 2 to 254"),
    ],
)
def test_class_list_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_folder(folder_layout(tmp_path, text), "folder")


def test_no_class_list(tmp_path: Path) -> None:
    root = folder_layout(tmp_path)
    (root / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes.txt: no such class list; write one name a line"):
        open_folder(root, "folder")


def test_masks_of_0_and_255_in_a_folder(tmp_path: Path) -> None:
    root = folder_layout(tmp_path)
    for split in ("train", "val"):
        write(root, {f"labels/{split}/a.png": [0, 255, 255, 0]}, [])
    with pytest.raises(ValueError, match="black-and-white masks"):
        open_folder(root, "folder")


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("ade20k", "images/training and annotations/training"),
        ("cityscapes", "leftImg8bit/train and gtFine/train"),
        ("coco_stuff", "images/train2017 and annotations/train2017"),
        ("folder", "images/train and labels/train"),
    ],
)
def test_another_layout_than_declared(tmp_path: Path, layout, wanted: str) -> None:
    root = voc(tmp_path)
    message = re.escape(f"looked for {wanted} ({layout} layout); found ImageSets/, JPEGImages/, SegmentationClass/ in")
    with pytest.raises(FileNotFoundError, match=message):
        open_folder(root, layout)


def test_lists_that_are_no_text_or_lead_out_are_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"sky\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"classes\.txt: byte [0-9,]+ is no UTF-8"):
        read_class_list(tmp_path / "classes.txt")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    listing = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    for content, says in ((b"\xff\xff", "byte 0 is no UTF-8"), (b"../a", r"names '\.\./a\.jpg', which is not a path")):
        listing.write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.txt: " + says):
            LAYOUTS["voc"].pairs(tmp_path, "train")
