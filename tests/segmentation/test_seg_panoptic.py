"""COCO panoptic sets of any origin: as many outputs as images, all inside the folders, every fault with its record."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmentation.data.layout import open_folder
from segmentation.data.panoptic import convert_panoptic, panoptic_to_labels
from segmentation.data.panoptic_json import read_panoptic
from tests.pixel_files import chunk, png

CATEGORIES = [{"id": 1, "name": "cat", "color": [9, 9, 9]}, {"id": 7, "name": "sky", "color": [0, 0, 255]}]
SEGMENT = {"id": 5, "category_id": 7}


def write(root: Path, names: list[str], **changes: Any) -> Path:
    """Images of one colour each, whose masks are segment 5 (sky) but for their first pixel, which is unlabelled."""
    for number, name in enumerate(names):
        for folder in ("images", "pngs"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(root / "images" / name, format="PNG")
        code = np.zeros((2, 3, 3), dtype=np.uint8)
        code[..., 0] = 5
        code[0, 0] = 0
        code[1, 1, 0] = 5 if number % 2 else 6  # the cat is in every other image
        Image.fromarray(code).save((root / "pngs" / name).with_suffix(f".{number}.png"))
    content = {
        "categories": CATEGORIES,
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {
                "image_id": number,
                "file_name": Path(name).with_suffix(f".{number}.png").as_posix(),
                "segments_info": [SEGMENT, {"id": 6, "category_id": 1}],
            }
            for number, name in enumerate(names)
        ],
    }
    path = root / "panoptic.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def convert(root: Path, out: Path) -> int:
    for split in ("train", "val"):
        count = convert_panoptic(root / "panoptic.json", root / "pngs", root / "images", out, split=split)
    return count


def test_as_many_outputs_as_images(tmp_path: Path) -> None:
    names = ["a/x.png", "b/x.png", "b/X.PNG", "b/x.jpg", "c/deep/y.jpg", "z.jpg"]
    write(tmp_path, names)
    assert convert(tmp_path, tmp_path / "out") == 6
    pairs = open_folder(tmp_path / "out", "folder").train.pairs
    assert len(pairs) == 6
    assert {pair.image_id for pair in pairs} >= {"x.png", "y.jpg", "z.jpg"}  # where no other wants it, the name is kept
    for pair in pairs:  # image and label are of one origin: the colour says of which
        number = Image.open(pair.image).getpixel((0, 0))[0]  # type: ignore[index]
        assert np.asarray(Image.open(pair.labels)).tolist() == [[255, 1, 1], [1, 1 if number % 2 else 0, 1]]
    assert sorted(Image.open(pair.image).getpixel((0, 0))[0] for pair in pairs) == [0, 1, 2, 3, 4, 5]  # type: ignore[index]


def test_nothing_is_written_over_what_is_read(tmp_path: Path) -> None:
    write(tmp_path, ["x.png"])
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "images").rename(tmp_path / "out" / "images" / "train")
    with pytest.raises(ValueError, match=r"x\.png: would be written over .*x\.png, which is read; give another --out"):
        convert_panoptic(
            tmp_path / "panoptic.json", tmp_path / "pngs", tmp_path / "out" / "images" / "train", tmp_path / "out"
        )
    assert not (tmp_path / "out" / "classes.txt").exists()


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png"])
@pytest.mark.parametrize("key", ["images", "annotations"])
def test_names_stay_inside_their_folders(tmp_path: Path, name: str, key: str) -> None:
    write(tmp_path, ["x.png"])
    content = json.loads((tmp_path / "panoptic.json").read_text())
    content[key][0]["file_name"] = name
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"panoptic\.json: names '.*x\.png', which is not a path inside"):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_made_of_links_are_read(tmp_path: Path) -> None:
    write(tmp_path, ["x.png"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images" / "x.png").rename(tmp_path / "elsewhere" / "x.png")
    os.symlink(tmp_path / "elsewhere" / "x.png", tmp_path / "images" / "x.png")
    assert convert(tmp_path, tmp_path / "out") == 1
    assert not (tmp_path / "out" / "images" / "train" / "x.png").is_symlink()


ENTRY = {"image_id": 0, "file_name": "x.0.png", "segments_info": [SEGMENT]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"annotations": [{**ENTRY, "image_id": None}]}, r"annotations\[0\]: image_id is None; it must be a whole num"),
        (
            {"annotations": [{**ENTRY, "image_id": 2**63}]},
            r"annotations\[0\]: image_id 9223372036854775808 is the id of",
        ),
        ({"annotations": [ENTRY, ENTRY]}, r"annotations\[1\]: a second annotation of image 'x\.png'; keep one"),
        (
            {"annotations": [{**ENTRY, "file_name": 3}]},
            r"annotations\[0\]: file_name is 3; it must be the name of a fi",
        ),
        (
            {"annotations": [{**ENTRY, "segments_info": None}]},
            r"annotations\[0\]: segments_info is None; it must be a l",
        ),
        (
            {"annotations": [{**ENTRY, "segments_info": [[]]}]},
            r"annotations\[0\]: segments_info\[0\] is \[\]; it must b",
        ),
        (
            {"annotations": [{**ENTRY, "segments_info": [{"id": 2**63, "category_id": 7}]}]},
            r"segments_info\[0\]: id is 9223372036854775808; it must be from 0 to 16,777,215",
        ),
        (
            {"annotations": [{**ENTRY, "segments_info": [{"id": 5, "category_id": 8}]}]},
            r"segments_info\[0\]: category_id 8 is the id of no category",
        ),
        (
            {"annotations": [{**ENTRY, "segments_info": [SEGMENT, {"id": 5, "category_id": 1}]}]},
            r"annotations\[0\]: segments_info: id 5 comes twice; keep one",
        ),
        ({"images": [{"id": 0, "file_name": "x.png"}, {"id": 0, "file_name": "y.png"}]}, r"images: id 0 comes twice"),
        ({"images": {}}, r"images is \{\}; it must be a list"),
        ({"categories": [{"id": 1.5, "name": "a"}]}, r"categories\[0\]: id is 1\.5; it must be a whole number"),
        ({"categories": [{"id": 1, "name": None}]}, r"categories\[0\]: name is None; it must be text"),
        ({"categories": [*CATEGORIES, {"id": 7, "name": "b"}]}, r"categories: id 7 comes twice"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 7, "name": " a"}]}, r"categories: a more than once"),
        ({"categories": [{**CATEGORIES[0], "color": [1, 2]}]}, r"categories\[0\]: color is \[1, 2\]; it must be three"),
        (
            {"categories": [{**CATEGORIES[0], "color": [1, 2, 256]}]},
            r"color is \[1, 2, 256\]; it must be three numbers",
        ),
        ({"annotations": [3]}, r"annotations\[0\] is 3; it must be an object"),
        ({"annotations": []}, r"no panoptic annotations \(no segments_info\)"),
    ],
)
def test_every_fault_names_the_file_and_the_record(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write(tmp_path, ["x.png"], **changes)
    with pytest.raises(ValueError, match=r"panoptic\.json: .*" + says):
        read_panoptic(path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"null", b'{"annotations": [{"segments_info": "\\ud800"}]}', b"\xff\xfe"]
)
def test_text_that_is_no_panoptic_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"p\.json: "):
        read_panoptic(tmp_path / "p.json")


def test_numbers_that_were_taken_are_taken_still(tmp_path: Path) -> None:
    categories = [{"id": "1", "name": 12}, {"id": 7.0, "name": "a  b\n", "color": [1, 2, 3]}]
    entry = {"image_id": "i", "file_name": "x.0.png", "segments_info": [{"id": "5", "category_id": 7}]}
    images = [{"id": "i", "file_name": "x.png"}]
    found = read_panoptic(write(tmp_path, ["x.png"], categories=categories, annotations=[entry], images=images))
    assert found.classes.names == ("12", "a b") and found.classes.palette is None
    assert found.images[0].segments == {5: 1}


def test_codes_are_read_from_any_png_that_stores_them(tmp_path: Path) -> None:
    def read(content: bytes) -> list:
        (tmp_path / "a.png").write_bytes(content)
        return panoptic_to_labels(tmp_path / "a.png", {1 + 2 * 256 + 3 * 65536: 4, 85 * (1 + 256 + 65536): 0}).tolist()

    codes = np.array([[[0, 0, 0], [1, 2, 3]]])
    alpha = np.concatenate([codes, np.full((1, 2, 1), 9)], axis=2)
    palette = chunk(b"PLTE", bytes([1, 2, 3, 0, 0, 0]))
    assert read(png(codes, 8, colour=2)) == read(png(alpha, 8, colour=6)) == [[255, 4]]
    assert read(png(codes * 257, 16, colour=2)) == [[255, 4]]
    assert read(png(np.array([[1, 0]]), 1, colour=3, extra=palette)) == [[255, 4]]
    assert read(png(np.array([[0, 1]]), 2)) == [[255, 0]]  # an equal code in all three channels, stored as grey
    with pytest.raises(ValueError, match=r"a\.png: colours of more than 8 bits"):
        read(png(codes, 16, colour=2))
