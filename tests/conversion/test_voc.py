"""VOC annotations: corners counted from 1, difficult objects, lists of splits, what is counted, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversion.coco_layout import write_coco
from conversion.voc import VocRules, read_voc

OBJECT = (
    "<object><name>{0}</name><pose>Left</pose><difficult>{5}</difficult><bndbox><xmin>{1}</xmin><ymin>{2}</ymin>"
    "<xmax>{3}</xmax><ymax>{4}</ymax></bndbox></object>\n"
)


def xml(*objects: tuple[Any, ...], size: tuple[int, int] | None = (40, 20), name: str = "a.png") -> str:
    """Return an annotation file: a line of its head, then an object a line."""
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    head = f"<annotation><filename>{name}</filename>{stated}\n"
    return head + "".join(OBJECT.format(*o, *(0,) * (6 - len(o))) for o in objects) + "</annotation>"


@pytest.fixture
def data(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """a: a dog over the whole image, a difficult cat of one pixel; b: nothing; c: a cat; d: in no list."""
    root = tmp_path / "set"
    for name in "abcd":
        draw(root / f"JPEGImages/{name}.png")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations/a.xml").write_text(xml(("dog", 1, 1, 40, 20), ("cat", 5, 6, 5, 6, 1)))
    (root / "Annotations/b.xml").write_text(xml(size=None, name="b.png"))
    (root / "Annotations/c.xml").write_text(xml(("cat", 2.5, 1, 12, 3), name="elsewhere.jpg"))
    (root / "Annotations/d.xml").write_text(xml(("cat", 1, 1, 2, 2), name="d.png"))
    (root / "ImageSets/Main/train.txt").write_text("a\nb\na\nx\n")
    (root / "ImageSets/Main/val.txt").write_text("c  1\n")
    (root / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    return root


def test_boxes_are_counted_from_one(data: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    lines = write_coco(read_voc(data, VocRules()), tmp_path / "out")
    assert objects(tmp_path / "out", "train2017") == [
        ("a.png", "dog", [0, 0, 40, 20], 0, None),
        ("a.png", "cat", [4, 5, 1, 1], 1, None),
    ]
    assert objects(tmp_path / "out", "val2017") == [("c.png", "cat", [1.5, 0, 10.5, 3], 0, None)]
    assert lines == [
        "train2017: 2 images of split 'train', 1 of them without an object; 2 objects, 1 of them crowds",
        "val2017: 1 images of split 'val', 0 of them without an object; 1 objects",
        "names that a list has twice, taken once: 1 (train.txt, line 3: a)",
        "images of a list without an annotation file, left out: 1 (train.txt, line 4: x)",
        "annotation files that no list of ImageSets/Main names, left out: 1 (d.xml)",
        "`pose` of objects, left out: 3 (a.xml, line 2, a.xml, line 3, c.xml, line 2)",
        "objects marked difficult, kept as crowds: not trained on, and detections on them do not count: 1 (a.xml, "
        "line 3)",
        "annotation files without an object, their images kept: 1 (b.xml)",
    ]


@pytest.mark.parametrize(
    ("rules", "expected", "counted"),
    [
        (VocRules(difficult="keep"), [("dog", [0, 0, 40, 20], 0), ("cat", [4, 5, 1, 1], 0)], "kept as any other: 1"),
        (VocRules(difficult="drop"), [("dog", [0, 0, 40, 20], 0)], "objects marked difficult, left out: 1"),
        (VocRules(zero_based=True), [("dog", [1, 1, 39, 19], 0), ("cat", [5, 6, 0, 0], 1)], "kept as crowds"),
        (
            VocRules(names=("cat",)),
            [("cat", [4, 5, 1, 1], 1)],
            "--names does not list, left out: 1 (a.xml, line 2: dog)",
        ),
    ],
)
def test_rules(
    rules: VocRules, expected: list[Any], counted: str, data: Path, tmp_path: Path, objects: Callable[..., Any]
) -> None:
    lines = write_coco(read_voc(data, rules), tmp_path / "out")
    assert [(name, box, crowd) for _, name, box, crowd, _ in objects(tmp_path / "out", "train2017")] == expected
    assert any(counted in line for line in lines)


def test_folders_as_roboflow_exports_them(
    tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]
) -> None:
    for folder in ("train", "valid"):
        draw(tmp_path / "set" / folder / "a.png")
        (tmp_path / "set" / folder / "a.xml").write_text(xml(("cat", 1, 1, 10, 10)))
    (tmp_path / "set/train/b.xml").write_text(xml(("cat", 1, 1, 10, 10), name="a.png"))
    (tmp_path / "set/train/c.xml").write_text(xml(("cat", 1, 1, 10, 10), name="../c.png"))
    lines = write_coco(read_voc(tmp_path / "set", VocRules()), tmp_path / "out")
    for split in ("train2017", "val2017"):
        assert objects(tmp_path / "out", split) == [("a.png", "cat", [0, 0, 10, 10], 0, None)]
    assert "annotation files of an image that another file is of too, left out: 1 (b.xml: a.png, as a.xml)" in lines
    assert "images that are not there, left out with their annotations: 1 (c.xml: ../c.png)" in lines


def test_without_lists_all_are_for_training(data: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    for path in (data / "ImageSets/Main").iterdir():
        path.unlink()
    lines = write_coco(read_voc(data, VocRules()), tmp_path / "out")
    assert lines[0].startswith("train2017: 4 images of split 'train'")
    (data / "ImageSets/Main/trainval.txt").write_text("c\n")
    lines = write_coco(read_voc(data, VocRules()), tmp_path / "two")
    assert lines[0].startswith("train2017: 1 images of split 'train'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no xml", r"Annotations/a\.xml, line 1: no XML"),
        ('<!DOCTYPE a [<!ENTITY b "ha">]><annotation/>', "declares the entity 'b'"),
        ("<annotations/>", "holds <annotations>; looked for <annotation>"),
        (xml(("dog", 1, 1, "wide", 20)), "a.xml, line 2: `xmax` is 'wide'; it must be a number of pixels"),
        (xml(("dog", 1, 1, "inf", 20)), "a.xml, line 2: `xmax` is 'inf'"),
        (xml(("dog", 1, 1, 4, 20, "maybe")), "a.xml, line 2: `difficult` is 'maybe'; it is 0 or 1"),
        (xml(("", 1, 1, 4, 20)), "a.xml, line 2: an object without a `name`"),
        (xml(("dog", 1, 1, 4, 20)).replace("ymax", "y"), "line 2: an object without a `bndbox` of xmin, ymin"),
        (xml(size=(1.5, 2)), "a.xml, line 1: `width` is '1.5'; it must be a whole number of pixels"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused(text: str, message: str, data: Path, tmp_path: Path) -> None:
    (data / "Annotations/a.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_coco(read_voc(data, VocRules()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds nothing: no such folder. A VOC data set has Annotations"):
        read_voc(tmp_path / "nowhere", VocRules())
    with pytest.raises(FileNotFoundError, match=r"holds set. A VOC data set has"):
        read_voc(tmp_path, VocRules())
    for path in (data / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(
        ValueError, match=r"the split 'train' has no image that can be used: .*images that are not there"
    ):
        write_coco(read_voc(data, VocRules()), tmp_path / "out")
