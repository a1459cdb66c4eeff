"""The look at folders of classes: every fault is found and counted; nothing stops it."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from classification.check import check_folders
from tools import check_data


def test_sound_folders(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = check_folders(data)
    assert checked.faults == ()
    assert checked.lines[1:] == (
        "train: 6 images, from 2 (cow) to 2 (ant) a class",
        "val: 3 images, from 1 (cow) to 1 (ant) a class",
        "3 classes: ant, bee, cow",
        "",
        "no faults found",
    )
    assert check_data.main(["classes", str(data)]) == 0
    assert "3 classes: ant, bee, cow" in capsys.readouterr().out


def test_every_fault_at_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / "train" / "bee" / "0.png", data / "val" / "ant" / "same.png")
    (data / "train" / "ant" / "0.png").write_bytes(b"")
    (data / "val" / "cow").rename(data / "val" / "dog")
    (data / "val" / ".cache").mkdir()
    checked = check_folders(data)
    text = "\n".join(checked.lines)
    assert f"1 images of val are in train too, byte by byte: {data}/train/bee/0.png and {data}/val/ant/same.png" in text
    assert "  val: 1 folders hidden or of the system are no classes (.cache)" in text
    unreadable, differ = checked.faults
    assert unreadable.startswith("train: 1 files cannot be read: ") and "only in val ['dog']" in differ
    shutil.rmtree(data / "val")
    assert "looked for val/<class>/<image>" in check_folders(data).faults[-1]
    assert check_data.main(["classes", str(data)]) == 1


def test_a_split_without_a_readable_image(data: Path) -> None:
    """Headers are whole, pixels are not; one image that can be read is enough."""
    paths = [path.with_suffix(".jpg") for path in sorted((data / "val").rglob("*.png"))]
    for path in paths:
        Image.open(path.with_suffix(".png")).save(path)
        path.with_suffix(".png").unlink()
    for path in paths:
        assert check_folders(data).faults == ()
        path.write_bytes(path.read_bytes()[:-200])
    (fault,) = check_folders(data).faults
    assert fault.startswith(f"val: none of its 3 images can be read; the first: {paths[0]}: unreadable image (")


def test_images_of_both_splits(data: Path) -> None:
    assert "6 validation images are training images too" in "\n".join(check_folders(data, val_split="train").lines)
