"""Lists and names as others write them: encodings, CVAT's class list, VOC's columns, names that differ a little."""

import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.data.check import check_ade20k
from segmentation.data.classes import Classes, read_class_list, read_object_info
from segmentation.data.layout import open_folder
from tests.segmentation.test_seg_layouts import cityscapes, decoded, folder_layout, voc, write
from tools.make_semantic import main

CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred car:255,0,0::\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_in_declared_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("sky\nb\u00e4r\n".encode(encoding))
    assert read_class_list(path) == Classes(("sky", "b\u00e4r"), None)
    (tmp_path / "objectInfo2.txt").write_bytes("Idx\tName\n1\tsky\n2\tb\u00e4r\n".encode(encoding))
    assert read_object_info(tmp_path) == Classes(("sky", "b\u00e4r"), None)
    root = voc(tmp_path / "voc")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes("2007_000001\r\n".encode(encoding))
    assert [pair.image_id for pair in open_folder(root, "voc").train.pairs] == ["2007_000001.jpg"]


def test_lists_in_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("sky\nb\u00e4r\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.txt: byte 5 is no UTF-8 \(invalid .*; save it as text in UTF-8"):
        read_class_list(path)
    path.write_bytes("sky\nbear\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"classes\.txt: holds zeros \(a binary file, or UTF-16 undeclared\)"):
        read_class_list(path)


def test_class_list_of_cvat(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(CVAT)
    classes = Classes(("background", "red car"), ((0, 0, 0), (255, 0, 0)))
    assert read_class_list(tmp_path / "labelmap.txt") == classes
    (tmp_path / "classes.txt").write_text(CVAT)  # known by its first line under any name
    assert read_class_list(tmp_path / "classes.txt") == classes
    root = folder_layout(tmp_path / "set")
    (root / "classes.txt").rename(root / "labelmap.txt")
    (root / "labelmap.txt").write_text(CVAT)
    assert open_folder(root, "folder").classes == classes
    assert "0        0  background" in "\n".join(check_ade20k(root, layout="folder").lines)
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.array([[[0, 0, 0], [255, 0, 0]]], dtype=np.uint8)).save(masks / "a.png")
    flags = ["colours", "--source", str(masks), "--out", str(tmp_path / "out")]
    assert main([*flags, "--palette", str(tmp_path / "labelmap.txt")]) == 0
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).tolist() == [[0, 1]]


def test_voc_with_the_class_list_of_cvat(tmp_path: Path) -> None:
    root = voc(tmp_path)
    write(root, {f"SegmentationClass/2007_00000{n}.png": [0, 1, 255, 1] for n in (1, 2, 3)}, [])
    (root / "labelmap.txt").write_text(CVAT)
    assert open_folder(root, "voc").classes.names == ("background", "red car")


@pytest.mark.parametrize("line", ["a:1,2:x:y", "a:1,2,256::", "a", ":1,2,3::", "a:1,2,3:", "a:r,g,b::"])
def test_class_list_of_cvat_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "labelmap.txt").write_text(f"{CVAT}{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"labelmap.txt: {line!r} is not name:red,green,blue:parts:actions")):
        read_class_list(tmp_path / "labelmap.txt")


def test_voc_names_with_spaces_and_columns(tmp_path: Path) -> None:
    root = voc(tmp_path)
    listing = root / "ImageSets" / "Segmentation" / "train.txt"
    write(root, {"SegmentationClass/my cat 1.png": [0, 1, 1, 1]}, ["JPEGImages/my cat 1.jpg"])
    listing.write_text("my cat 1\n2007_000001 2007_000003\n")
    names = [pair.image_id for pair in open_folder(root, "voc").train.pairs]
    assert names == ["my cat 1.jpg", "2007_000001.jpg", "2007_000003.jpg"]
    listing.write_text("2007_000001 -1\n2007_000003  1\n")
    with pytest.raises(
        ValueError, match=r"train\.txt: '2007_000001 -1' has a column behind the name, .*keep the names"
    ):
        open_folder(root, "voc")


def test_voc_names_that_stand_twice_are_counted(tmp_path: Path) -> None:
    root = voc(tmp_path)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000001\n2007_000003\n2007_000001\n")
    folder = open_folder(root, "voc")
    assert [pair.image_id for pair in folder.train.pairs] == ["2007_000001.jpg", "2007_000003.jpg"]
    assert "train: 1 names stand more than once in the list, taken once (2007_000001)" in folder.notes
    assert not any(note.startswith("val: ") and "more than once" in note for note in folder.notes)


@pytest.mark.parametrize("ending", [".png", ".jpeg"])
def test_voc_images_of_other_endings(tmp_path: Path, ending: str) -> None:
    root = voc(tmp_path)
    image = root / "JPEGImages" / "2007_000001.jpg"
    shutil.copy(image, image.with_suffix(ending))
    assert [pair.image_id for pair in open_folder(root, "voc").train.pairs] == [image.name]  # as ever
    image.unlink()
    assert [pair.image_id for pair in open_folder(root, "voc").train.pairs] == [f"2007_000001{ending}"]
    shutil.copy(image.with_suffix(ending), image.with_suffix(".bmp"))
    with pytest.raises(ValueError, match=r"train\.txt: '2007_000001' may be each of .*2007_000001\.bmp.*; keep one"):
        open_folder(root, "voc")


def test_names_that_differ_a_little(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    (root / "JPEGImages" / "2007_000001.jpg").rename(root / "JPEGImages" / "2007_000001.JPG")
    with pytest.raises(
        FileNotFoundError, match=r"for '2007_000001\.jpg' there is '2007_000001\.JPG', which differs in its case"
    ):
        open_folder(root, "voc")
    root = folder_layout(tmp_path / "set")
    composed = "\u00e9"
    write(
        root,
        {f"labels/train/{composed}.png": [0, 1, 1, 1]},
        [f"images/train/{unicodedata.normalize('NFD', composed)}.png"],
    )
    with pytest.raises(ValueError, match="which differs in its Unicode form"):
        open_folder(root, "folder")


@pytest.mark.parametrize("ending", ["tif", "bmp"])
def test_label_maps_of_other_lossless_files(tmp_path: Path, ending: str) -> None:
    root = folder_layout(tmp_path / "all")
    for split in ("train", "val"):
        path = root / "labels" / split / "a.png"
        Image.open(path).save(path.with_suffix(f".{ending}"))
        path.unlink()
    assert decoded(open_folder(root, "folder")) == [0, 1, 255, 1]
    assert check_ade20k(root, layout="folder").faults == ()
    root = cityscapes(tmp_path / "cs", "labelTrainIds", [0, 18, 255, 1])
    for path in [*root.rglob("*TrainIds.png")]:
        Image.open(path).save(path.with_suffix(f".{ending}"))
        path.unlink()
    assert decoded(open_folder(root, "cityscapes")) == [0, 18, 255, 1]


def test_a_png_goes_before_another_file_of_its_name(tmp_path: Path) -> None:
    root = folder_layout(tmp_path)
    write(root, {"labels/train/a.tif": [0, 0, 0, 0], "labels/train/other.tif": [0, 0, 0, 0]}, [])
    assert decoded(open_folder(root, "folder")) == [0, 1, 255, 1]


def test_a_split_in_which_nothing_counts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_layout(tmp_path)
    write(root, {"labels/val/a.png": [255, 255, 255, 255]}, [])
    message = r"val: in none of its 1 label maps \(.*labels/val/a\.png, \.\.\.\) does a pixel count: .*255 is ignored\)"
    with pytest.raises(ValueError, match=message):
        open_folder(root, "folder")
    monkeypatch.setattr("segmentation.data.layout.CENSUS_LIMIT", 0)
    with pytest.raises(ValueError, match=message):
        open_folder(root, "folder")
    (fault,) = check_ade20k(root, layout="folder").faults
    assert re.search(message, fault)


def test_hidden_images_and_images_of_both_splits_are_said(tmp_path: Path) -> None:
    root = folder_layout(tmp_path)
    for name in ("images/train/._a.bmp", "labels/train/._a.png", "images/val/.ipynb_checkpoints/b.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    folder = open_folder(root, "folder")
    assert folder.notes[1:] == (
        "train: 2 images hidden or of the system left out (._a.bmp, ._a.png)",
        "val: 1 images hidden or of the system left out (.ipynb_checkpoints/b.png)",
    )
    checked = check_ade20k(root, layout="folder")
    assert checked.faults == ()
    assert "1 images of val are in train too, byte by byte: a.bmp and a.bmp" in checked.lines
    root = voc(tmp_path / "voc")
    notes = open_folder(root, "voc", val="train").notes
    assert notes[-1] == f"1 images are in train and in train ({root / 'JPEGImages' / '2007_000001.jpg'})"
