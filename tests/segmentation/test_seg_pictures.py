"""The confusion picture, the table of classes, and pictures of large images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.images.reading import read_reduced
from segmentation.data.check import check_ade20k
from segmentation.evaluation.counts import write_per_class
from segmentation.evaluation.pictures import draw_confusion, drawn_at, thinned
from segmentation.evaluation.predictions import draw_overlay, pixels_of


def test_table_of_classes_by_hand(tmp_path: Path) -> None:
    total = np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]])
    path = write_per_class(tmp_path / "new" / "per_class.csv", total, ["sky", "a, b", "never"])
    assert path.read_text().splitlines() == [
        "class,name,iou,acc,labelled,predicted,hit",
        "0,sky,66.6667,66.6667,3,2,2",
        '1,"a, b",75.0000,100.0000,3,4,3',
        "2,never,,,0,0,0",
    ]


def test_confusion_picture_of_many_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    total = np.diag(rng.integers(1, 1000, 150))
    total[3, 7] = 500
    total[9] = 0  # never labelled
    small = Image.open(draw_confusion(tmp_path / "few.png", total[:4, :4], list("abcd")))
    large = Image.open(draw_confusion(tmp_path / "many.png", total, [f"class {i}" for i in range(150)]))
    assert small.size < large.size < (1300, 1300)
    assert np.asarray(large.convert("L")).std() > 5


def test_large_images_are_drawn_reduced_and_the_need_is_said(
    tmp_path: Path, write_folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder()
    for name, values in (("images", np.zeros((30, 4100, 3))), ("annotations", np.tile([1, 2], (30, 2050)))):
        path = next((folder / name / "training").glob("0.*"))
        Image.fromarray(values.astype(np.uint8)).save(path)
    assert drawn_at((2000, 3)) == "" and drawn_at((3, 2001)) == ", drawn at most 2000 pixels wide or high"
    assert thinned(np.zeros((30, 4100))).shape == (10, 1367)
    image, size = read_reduced(folder / "images" / "training" / "0.jpg")
    assert size == (4100, 30) and image.size == (2000, 15)
    monkeypatch.setattr("engine.images.file.SAID_FROM", 0.1)
    checked = check_ade20k(folder, sheet=tmp_path / "sheet.png")
    assert checked.faults == ()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith("0.jpg: 4100 x 30 pixels, for which about 0.0 GB of memory are needed.")
    # the legend counts all pixels, not those that are drawn
    class_HW = np.tile(np.array([0, 0, 1], dtype=np.uint8), (4, 1400))
    Image.new("RGB", (4200, 4)).save(tmp_path / "a.png")
    assert pixels_of(class_HW, 3).tolist() == [11200, 5600, 0]
    draw_overlay(
        tmp_path / "b.png",
        tmp_path / "a.png",
        class_HW,
        names=["a", "b", "c"],
        palette_C3=np.eye(3, dtype=np.uint8) * 255,
    )
    assert Image.open(tmp_path / "b.png").width < 1000


def test_an_image_cut_off_after_its_header_is_a_fault_of_the_sheet(tmp_path: Path, write_folder) -> None:
    folder = write_folder()
    path = folder / "images" / "training" / "0.jpg"
    path.write_bytes(path.read_bytes()[:700])
    checked = check_ade20k(folder, sheet=tmp_path / "sheet.png")
    assert checked.sheet is not None and checked.sheet.is_file()
    (fault,) = checked.faults
    assert "drawn for the sheet: " in fault and "0.jpg: unreadable image (" in fault
