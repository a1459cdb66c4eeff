"""CVAT for images 1.1: boxes, polygons and masks worked by hand, subsets, what is counted, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest

from conversion.coco_layout import write_coco
from conversion.cvat import read_cvat

META = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>cat</name><attributes/></label><label><name>dog</name></label>\
<label><name>ear</name><parent>dog</parent></label>
</labels></task></meta>
"""
SHAPES = """<image id="0" name="a.png" subset="Train" width="40" height="20">
<polygon label="cat" source="manual" occluded="1" points="1,2;5,2;5,8" z_order="0" group_id="3">\
<attribute name="x">1</attribute></polygon>
<mask label="dog" occluded="0" rle="1, 2, 2, 1" left="3" top="4" width="3" height="2" z_order="0"></mask>
<points label="cat" points="1,2"/>
</image>
<image id="1" name="b.png" subset="Validation" width="40" height="20">\
<polygon label="cat" points="0,0;4,0;4,4"/></image>
<image id="2" name="c.png" subset="Validation" width="40" height="20"></image>
<image id="3" name="gone.png" subset="Train" width="40" height="20"/>
</annotations>
"""
BOX = '<box label="dog" xtl="{}" ytl="{}" xbr="{}" ybr="{}" {}/>'


def write(root: Path, shapes: str, draw: Callable[..., Path], *, images: str = "images") -> Path:
    (root).mkdir(exist_ok=True)
    for name in "abc":
        draw(root / images / f"{name}.png")
    (root / "annotations.xml").write_text(META + shapes)
    return root


def one(shape: str, sides: str = 'width="40" height="20"') -> str:
    return f'<image id="0" name="a.png" {sides}>\n{shape}\n</image></annotations>'


def test_polygons_and_masks(tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]) -> None:
    lines = write_coco(read_cvat(write(tmp_path / "set", SHAPES, draw)), tmp_path / "out")
    polygon, mask = objects(tmp_path / "out", "train2017")
    assert polygon == ("a.png", "cat", [1, 2, 4, 6], 0, [[1, 2, 5, 2, 5, 8]])
    assert mask[:4] == ("a.png", "dog", [4, 4, 2, 2], 0)
    drawn_HW = np.zeros((20, 40), np.uint8)
    drawn_HW[4, 4:6] = 1  # of the rectangle's rows: outside, inside, inside
    drawn_HW[5, 5] = 1  # outside, outside, inside
    assert (rle.decode(mask[4]) == drawn_HW).all()
    assert objects(tmp_path / "out", "val2017") == [("b.png", "cat", [0, 0, 4, 4], 0, [[0, 0, 4, 0, 4, 4]])]
    assert lines == [
        "train2017: 1 images of split 'Train', 0 of them without an object; 2 objects, all with a mask",
        "val2017: 2 images of split 'Validation', 1 of them without an object; 1 objects, all with a mask",
        "`attribute`s of shapes, left out: 1 (line 6: x)",
        "`occluded` of shapes, left out: 1 (line 6)",
        "`group_id` of shapes, not followed: each shape is an object of its own: 1 (line 6)",
        "`points`, neither box, polygon nor mask, left out: 1 (line 8)",
        "images that are not there, left out with their annotations: 1 (line 12: gone.png)",
        "images without a shape, kept without objects: 1 (c.png)",
    ]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (BOX.format(1.5, 2, 11.5, 8, ""), [1.5, 2, 10, 6]),
        (BOX.format(10, 8, 20, 12, 'rotation="90"'), [13, 5, 4, 10]),  # about its centre, 15, 10
        (BOX.format(10, 8, 20, 12, 'rotation="180.0"'), [10, 8, 10, 4]),
        # a square of side 10, turned by 45 degrees, is as wide as its diagonal
        (BOX.format(10, 5, 20, 15, 'rotation="45"'), [7.928932, 2.928932, 14.142136, 14.142136]),
    ],
)
def test_boxes(
    box: str, expected: list[float], tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]
) -> None:
    data = write(tmp_path / "set", one(box, sides=""), draw)
    lines = write_coco(read_cvat(data / "annotations.xml"), tmp_path / "out")
    assert objects(tmp_path / "out", "train2017") == [("a.png", "dog", expected, 0, None)]
    assert any("upright box around them: 1 (line 6" in line for line in lines) == ("rotation" in box)


@pytest.mark.parametrize("images", [".", "images/train", "images/default", "photos"])
def test_where_images_lie(images: str, tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]) -> None:
    data = write(tmp_path / "set", one(BOX.format(0, 0, 1, 1, "")), draw, images=images)
    write_coco(read_cvat(data, images=data / "photos" if images == "photos" else None), tmp_path / "out")
    assert len(objects(tmp_path / "out", "train2017")) == 1


MASK = '<mask label="dog" rle="{}" left="{}" top="4" width="3" height="{}"/>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("</annotations>", "has no image. Export the task as `CVAT for images 1.1`"),
        ("<track id='0'/></annotations>", "line 5: a track, of `CVAT for video`"),
        (one(BOX.format(1, 1, "x", 2, "")), "line 6: `xbr` is 'x'; it must be a number of pixels"),
        (one('<box label="cow" xtl="1"/>'), "line 6: label 'cow'; the file lists 'cat', 'dog'"),
        (one("<box/>"), "line 6: <box> without `label`"),
        (one('<polygon label="cat" points="1,2;3"/>'), "line 6: a polygon with the points '1,2;3'; they are three or"),
        (one('<polygon label="cat" points="1,2;3,4;5,nan"/>'), "line 6: a coordinate is 'nan'"),
        (one(MASK.format("1, 2", 3, 2)), "line 6: a mask with runs of 3 pixels .*; its rectangle of 3x2 has 6"),
        (one(MASK.format("7, -1", 3, 2)), "line 6: a mask with runs of 6 pixels .the shortest -1"),
        (one(MASK.format("6", 38, 2)), "line 6: a mask of 3x2 pixels at 38, 4; the image has 40x20"),
        (one(MASK.format("6", 3, 0)), "line 6: a mask of 3x0 pixels"),
        (one(MASK.format("6", 3, 2), 'width="99999999" height="99999"'), "more than 179 megapixels"),
        (one("", 'width="4.5" height="20"'), "line 5: `width` is '4.5'; it must be a whole number"),
        (one("").replace("a.png", "../a.png"), "names '../a.png', which is not a path inside"),
        ("<image", "no XML"),
    ],
)
def test_what_is_refused(text: str, message: str, tmp_path: Path, draw: Callable[..., Path]) -> None:
    data = write(tmp_path / "set", text, draw)
    with pytest.raises(ValueError, match=message) as caught:
        write_coco(read_cvat(data), tmp_path / "out")
    assert "annotations.xml" in str(caught.value) and not (tmp_path / "out").exists()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations\.xml: no such file. Export the task"):
        read_cvat(tmp_path)
    (tmp_path / "annotations.xml").write_text(META + one(""))
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; --images names that of the images"):
        read_cvat(tmp_path, images=tmp_path / "nowhere")
