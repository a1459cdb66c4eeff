"""The look at a data set before training: every fault is found, named and counted; nothing stops it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.data.check import check_ade20k


def put(path: Path, values: np.ndarray) -> None:
    """Write an image over what is there."""
    Image.fromarray(values).save(path)


def test_a_sound_folder(write_folder, tmp_path: Path) -> None:
    checked = check_ade20k(write_folder(), sheet=tmp_path / "new" / "sheet.png")
    text = "\n".join(checked.lines)
    assert checked.faults == () and checked.lines[-1] == "no faults found"
    assert "ade20k layout, 3 classes (labels 1 to 3; 0 and 255 are ignored)" in text
    assert "sizes: 40 x 32 (4)" in text
    rows = [line.split() for line in checked.lines if line.startswith(" ") and line.split()[0].isdigit()]
    # per image 2 rows of 40 are 0, half of the other 1200 pixels is class 1; right halves alternate
    assert rows == [
        ["0", "ignored", "320", "6.2%", "4", "240", "6.2%", "3"],
        ["1", "0", "left", "2400", "46.9%", "4", "1800", "46.9%", "3"],
        ["2", "1", "dark", "1200", "23.4%", "2", "1200", "31.2%", "2"],
        ["3", "2", "bright", "1200", "23.4%", "2", "600", "15.6%", "1"],
    ]
    assert checked.sheet is not None and np.asarray(Image.open(checked.sheet).convert("L")).std() > 5


def test_every_fault_at_once(write_folder) -> None:
    folder = write_folder(train=9)
    maps = folder / "annotations" / "training"
    label = np.asarray(Image.open(maps / "0.png")).copy()
    label[5, 5] = 77
    put(maps / "0.png", label)  # a number that is no class
    put(maps / "1.png", np.zeros((32, 40, 3), dtype=np.uint8))  # colours
    put(maps / "2.png", np.ones((40, 32), dtype=np.uint8))  # another size
    wide = np.ones((32, 40), dtype=np.uint16)
    wide[0, :3] = 257
    put(maps / "3.png", wide)  # 16 bits, and a number that would wrap to 1
    put(maps / "4.png", np.tile(np.array([0, 255], dtype=np.uint8), (32, 20)))  # black and white
    put(maps / "5.png", np.full((32, 40), 255, dtype=np.uint8))  # all ignored: no fault, but said
    (maps / "6.png").write_bytes((maps / "6.png").read_bytes()[:60])
    (maps / "7.png").unlink()
    (folder / "images" / "training" / "8.jpg").unlink()
    checked = check_ade20k(folder, sheet=folder / "sheet.png")
    faults = "\n".join(checked.faults)
    assert len(checked.faults) == 8
    for part in (
        "training: 1 images have no label map: 7",
        "training: 1 label maps have no image: 8",
        "training: 1 files cannot be read: ",
        "training: 1 label maps hold colours, not numbers: ",
        "training: 1 label maps are not of their image's size: 2.png 32 x 40, its image 40 x 32",
        "training: 1 label maps hold 0 and 255 alone: 4.png; 255 is ignored.",
        "training: label 77 (1 pixels in 1 maps, first in 0.png) stands for no class; there are 3 classes",
        "training: label 257 (3 pixels in 1 maps, first in 3.png) stands for no class",
    ):
        assert part in faults
    text = "\n".join(checked.lines)
    assert "1 label maps of 16 bits: 3.png" in text
    assert "1 label maps in which every pixel is ignored: 5.png" in text
    assert checked.sheet is not None


def test_a_split_whose_images_are_cut_off(write_folder) -> None:
    root = write_folder()
    for path in sorted((root / "images" / "validation").iterdir()):
        assert check_ade20k(root).faults == ()
        path.write_bytes(path.read_bytes()[:-200])
    (fault,) = check_ade20k(root).faults
    assert fault.startswith("validation: none of its ") and ": unreadable image (" in fault


def test_labels_that_count_from_nought_already(write_folder) -> None:
    folder = write_folder()
    for path in (folder / "annotations").rglob("*.png"):
        label = np.asarray(Image.open(path))
        put(path, np.where(label > 0, label - 1, 255).astype(np.uint8))
    (fault,) = check_ade20k(folder).faults
    assert fault.startswith("labels 0 to 2 all occur and 3 never does")


def test_a_missing_split_and_a_missing_folder(write_folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for images/training and annotations/training"):
        check_ade20k(tmp_path / "nowhere")
    folder = write_folder(names=None)
    (folder / "images" / "training").rename(folder / "images" / "other")
    checked = check_ade20k(folder)
    assert checked.faults == ("images/training is missing: no training split",)
    assert "never: class 3" not in "\n".join(checked.lines)


def test_photographs_on_their_side(write_folder) -> None:
    folder = write_folder()
    path = folder / "images" / "training" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    (fault,) = check_ade20k(folder).faults
    assert "0.png 40 x 32, its image 32 x 40" in fault


def test_genuine_ade20k(real_data: Path, tmp_path: Path) -> None:
    checked = check_ade20k(real_data / "ade20k_genuine", sheet=tmp_path / "sheet.png")
    assert checked.faults == ("images/training is missing: no training split",)
    text = "\n".join(checked.lines)
    assert "sizes: 683 x 512 (1), 500 x 364 (1)" in text
    assert "8 of 150 classes occur" in text
    sky = next(line.split() for line in checked.lines if " sky " in line)
    assert sky[:3] == ["3", "2", "sky"]


def test_genuine_camvid(real_data: Path) -> None:
    checked = check_ade20k(real_data / "seg_camvid")
    assert checked.faults == ()
    assert "11 of 11 classes occur; never: none" in "\n".join(checked.lines)


def test_each_data_set_has_a_sheet_of_its_own(tmp_path: Path) -> None:
    from tools.check_data import Ade20k, Coco, _sheet

    named = [_sheet(form(data=tmp_path / name)) for form in (Ade20k, Coco) for name in ("a/set", "b/set")]
    assert len({*named}) == 4 and all(path.parent == Path() for path in named)
    assert _sheet(Ade20k(data=tmp_path / "a/../a/set")) == named[0]
    assert _sheet(Ade20k(data=tmp_path, sheet=Path("mine.png"))) == Path("mine.png")
