"""YOLO data sets: boxes worked by hand, where images and labels are found, what is counted, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.coco_layout import write_coco
from conversion.yolo import SLACK, parse_line, read_yolo

YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"


@pytest.fixture
def data(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """A data set of 40x20 pixels an image: a.png with a box and a polygon, b.png without an object."""
    root = tmp_path / "set"
    for name in ("train/a.png", "train/deep/b.png", "val/c.png"):
        draw(root / "images" / name)
    for folder in ("train/deep", "val"):
        (root / "labels" / folder).mkdir(parents=True)
    (root / "data.yaml").write_text(YAML)
    (root / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.1 0.4 0.3 0.4\n")
    (root / "labels/train/deep/b.txt").write_text("\n")
    (root / "labels/val/c.txt").write_text("0 0.05 0.5 0.2 1 \n")
    return root


def test_boxes_and_polygons(data: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    out = tmp_path / "out"
    lines = write_coco(read_yolo(data), out, boxes_only=True)
    # centre 20, 10, sides 10, 10; and around (4, 4), (4, 8), (12, 8)
    assert objects(out, "train2017") == [
        ("a.png", "dog", [15, 5, 10, 10], 0, None),
        ("a.png", "cat", [4, 4, 8, 4], 0, None),
    ]
    assert objects(out, "val2017") == [("c.png", "cat", [-2, 0, 8, 20], 0, None)]  # clipped when it is read
    assert lines == [
        "train2017: 2 images of split 'train', 1 of them without an object; 2 objects",
        "val2017: 1 images of split 'val', 0 of them without an object; 1 objects",
        "polygons and masks, left out by --boxes-only: 1 (a.png)",
        "empty label files, their images kept without objects: 1 (labels/train/deep/b.txt)",
    ]
    assert (out / "train2017/deep/b.png").is_symlink()
    with pytest.raises(ValueError, match=r"1 of 3 objects have a polygon or a mask, the others a box alone"):
        write_coco(read_yolo(data), tmp_path / "masks")
    assert not (tmp_path / "masks").exists() and not list(tmp_path.glob(".*"))


def test_a_test_split_that_is_named_and_not_there_is_left_out(data: Path, tmp_path: Path) -> None:
    file = data / "data.yaml"
    file.write_text(f"{YAML}\ntest: images/test\n")
    lines = write_coco(read_yolo(data), tmp_path / "out", boxes_only=True)
    assert "`test` of data.yaml left out: there is no such folder: 1 ('images/test')" in lines
    file.write_text(YAML.replace("images/val", "images/none"))
    with pytest.raises(FileNotFoundError, match="images/none: not there, though `val` of"):
        read_yolo(data)


def test_polygons_alone_become_masks(data: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    (data / "labels/train/a.txt").write_text("0 0.1 0.2 0.1 0.4 0.3 0.4 0.3 0.2\n")
    (data / "labels/val/c.txt").unlink()
    out = tmp_path / "out"
    lines = write_coco(read_yolo(data), out, copy=True)
    ((_, _, box, _, segmentation),) = objects(out, "train2017")
    assert box == [4, 4, 8, 4] and [round(v, 6) for v in segmentation[0]] == [4, 4, 4, 8, 12, 8, 12, 4]
    (raw,) = json.loads((out / "annotations/instances_train2017.json").read_text())["annotations"]
    assert raw["area"] == 32
    assert lines[0].endswith("1 objects, all with a mask") and "without a label file, kept" in lines[-1]
    assert not (out / "train2017/a.png").is_symlink()
    assert (out / "train2017/a.png").read_bytes() == (data / "images/train/a.png").read_bytes()


@pytest.mark.parametrize(
    ("yaml", "note"),
    [
        (
            "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\nroboflow: {}\n",
            "`../` of data.yaml",
        ),
        ("path: /nowhere\ntrain: train/images\nval: [valid/images]\nnames: {0: cat, 1: dog}\n", "`path` of data.yaml"),
        ("path: \ntrain: train.txt\nval: valid/images/\nnames: {1: dog, 0: cat}\n", "that are not there, left out"),
    ],
)
def test_where_images_are_found(
    yaml: str, note: str, tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]
) -> None:
    root = tmp_path / "set"
    for name in ("train", "valid"):
        draw(root / name / "images/a.png")
        (root / name / "labels").mkdir()
        (root / name / "labels/a.txt").write_text("1 0.5 0.5 1 1")
    (root / "train.txt").write_text("./train/images/a.png\ntrain/images/no.png\n")
    (root / "data.yaml").write_text(yaml)
    lines = write_coco(read_yolo(root / "data.yaml" if "nowhere" in yaml else root), tmp_path / "out")
    assert any(note in line for line in lines)
    for split in ("train2017", "val2017"):
        ((_, name, box, _, _),) = objects(tmp_path / "out", split)
        assert (name, box) == ("dog", [0, 0, 40, 20])


def test_a_list_of_classes_alone(tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]) -> None:
    root = tmp_path / "set"
    draw(root / "images/a.png")
    draw(root / "images/a.jpg")
    draw(root / "images/b.png").write_bytes(b"no image")
    (root / "images/notes.md").write_text("")
    (root / "images/.DS_Store").write_text("")
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text("0 0.5 0.5 1 1")
    (root / "labels/gone.txt").write_text("0 0.5 0.5 1 1")
    (root / "classes.txt").write_text("cat\n\n")
    lines = write_coco(read_yolo(root), tmp_path / "out")
    assert objects(tmp_path / "out", "train2017") == [("a.jpg", "cat", [0, 0, 40, 20], 0, None)]
    text = "\n".join(lines)
    for counted in (
        "too (same name, other ending or place), left out: 1 (images/a.png, as images/a.jpg)",
        "images that cannot be read, left out: 1 (b.png (cannot identify",
        "files of no image format that is read, left out: 2 (.DS_Store, notes.md)",
        "label files without an image, left out: 1 (labels/gone.txt)",
        "no images for validation: `python tools/hold_out.py train_det",
    ):
        assert counted in text


def test_keypoints_are_left_out(data: Path, tmp_path: Path, objects: Callable[..., Any]) -> None:
    (data / "data.yaml").write_text(YAML + "kpt_shape: [1, 2]\n")
    (data / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5 0.1 0.1\n")
    (data / "labels/val/c.txt").write_text("1 0.5 0.5 0.25 0.5 9 9\n")
    lines = write_coco(read_yolo(data), tmp_path / "out")
    assert objects(tmp_path / "out", "train2017") == [("a.png", "dog", [15, 5, 10, 10], 0, None)]
    assert any(line.startswith("keypoints of objects, left out: 2") for line in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", r"labels/train/a\.txt, line 2: has 4 numbers \('0 0\.5 0\.5 0\.2'\); a line is `class cx cy"),
        ("0 0.5 0.5 0.2 0.2 0.9", "line 2: has 6 numbers, of which the last may be a confidence"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 2: has 8 numbers"),
        ("2 0.5 0.5 0.2 0.2", "line 2: class 2; the list of classes has 2, numbered from 0 to 1. Add"),
        ("-1 0.5 0.5 0.2 0.2", "line 2: class -1;"),
        ("0.5 0.5 0.5 0.2 0.2", "line 2: class 0.5;"),
        ("0 1.7 0.5 0.2 0.2", "line 2: coordinate 1.7; coordinates are fractions of the image's sides, from 0 to 1"),
        ("0 0.5 nan 0.2 0.2", "line 2: 'nan' is no number"),
        ("cat 0.5 0.5 0.2 0.2", "line 2: 'cat' is no number; a line is"),
    ],
)
def test_lines_that_are_refused(line: str, message: str, data: Path, tmp_path: Path) -> None:
    (data / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        write_coco(read_yolo(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\n", "has no `names`"),
        ("train: images/train\nnc: 3\nnames: [a]\n", "`nc` is 3 and `names` lists 1 classes"),
        ("train: images/train\nnames: {1: a, 2: b}\n", "`names` has the keys 1, 2; they are 0, 1, 2 and so on"),
        ("train: images/train\nnames: 3\n", "`names` is 3; it is a list"),
        ("train: images/train\nnames: [yes, no]\n", "`names` has True, which YAML does not take for text; write it in"),
        ("names: [a]\n", "names no images"),
        ("train: /etc\nnames: [a]\n", "which is not a path inside .* Or give --root"),
        ("train: a/../../x\nnames: [a]\n", "which is not a path inside"),
        ("train: 3\nnames: [a]\n", "`train` is 3; it is a folder, a list of folders, or a text file"),
        ("train: images/nowhere\nnames: [a]\n", "nowhere: not there, though `train` of .*data.yaml names it"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17\n", "`kpt_shape` is 17; it is two numbers"),
        (
            "train: images/train\nval: images/val\nvalid: images/val\nnames: [a, b]",
            "'val' and 'valid' would both become",
        ),
    ],
)
def test_files_that_are_refused(yaml: str, message: str, data: Path, tmp_path: Path) -> None:
    (data / "data.yaml").write_text(yaml)
    with pytest.raises((ValueError, OSError), match=message):
        write_coco(read_yolo(data), tmp_path / "out")
    with pytest.raises(OSError, match=r"no such folder or file. A YOLO data set has a data.yaml"):
        read_yolo(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"holds images, labels. A YOLO data set has"):
        (data / "data.yaml").unlink()
        read_yolo(data)


def test_coco_to_yolo_and_back(tmp_path: Path, draw: Callable[..., Path], objects: Callable[..., Any]) -> None:
    """Boxes written as six decimals, as exporters do, come back to within 1e-6 of the sides."""
    boxes = [[0, 0, 40, 20], [3, 7, 11, 5], [38.5, 18.25, 1.5, 1.75]]
    draw(tmp_path / "set/images/a.png")
    (tmp_path / "set/labels").mkdir()
    rows = [((x + w / 2) / 40, (y + h / 2) / 20, w / 40, h / 20) for x, y, w, h in boxes]
    text = "".join(f"0 {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n" for cx, cy, w, h in rows)
    (tmp_path / "set/labels/a.txt").write_text(text)
    (tmp_path / "set/classes.txt").write_text("cat")
    write_coco(read_yolo(tmp_path / "set"), tmp_path / "out")
    found = [box for _, _, box, _, _ in objects(tmp_path / "out", "train2017")]
    assert found == [pytest.approx(box, abs=1e-4) for box in boxes]  # 1.5 rounding errors of 5e-7 x 40 pixels


numbers = st.floats(-SLACK, 1 + SLACK, allow_nan=False)


@given(st.integers(0, 4), st.one_of(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=6)))
def test_any_line_of_numbers_is_read_as_written(label: int, values: list[float]) -> None:
    line = " ".join([str(label), *map(repr, values)])
    if len(values) == 4 or len(values) % 2 == 0:
        found = parse_line(f"  {line}\t", "a.txt, line 1", classes=5)
        assert found.label == label
        assert list(found.box or found.polygon) == values
    else:
        with pytest.raises(ValueError, match=f"line 1: has {len(values) + 1} numbers"):
            parse_line(line, "a.txt, line 1", classes=5)


@given(st.text(min_size=1).filter(lambda text: bool(text.split())))
def test_any_text_is_read_or_refused_by_its_place(text: str) -> None:
    try:
        found = parse_line(text, "a.txt, line 7", classes=5)
    except ValueError as error:
        assert str(error).startswith("a.txt, line 7: ")
    else:
        assert 0 <= found.label < 5
