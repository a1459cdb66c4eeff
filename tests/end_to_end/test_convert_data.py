"""tools/convert_data.py: what it converts is looked at, and trained on as it lies there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import check_data, convert_data, hold_out, train_cls, train_det

ONE_STEP = ["--steps", "1", "--batch-size", "2"]


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)).save(path)


def write_yolo(root: Path) -> Path:
    """Write four images for training and two for validation, each with a box and one beyond its edge."""
    for number in range(6):
        part = "train" if number < 4 else "val"
        draw(root / "images" / part / f"{number}.png", number)
        label = root / "labels" / part / f"{number}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{number % 2} 0.5 0.5 0.4 0.5\n1 0.95 0.5 0.3 0.2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: ball, 1: cone}\n")
    return root


@pytest.mark.slow
def test_converted_sets_are_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detect, classify, held = tmp_path / "detect", tmp_path / "classify", tmp_path / "held"
    assert convert_data.main(["yolo", str(write_yolo(tmp_path / "yolo")), "--out", str(detect)]) == 0
    said = capsys.readouterr().out
    assert "train2017: 4 images of split 'train', 0 of them without an object; 8 objects" in said
    assert "note: boxes partly outside of their image, clipped: 4" in said and "no faults found" in said
    assert train_det.main(["tiny", "--data", str(detect), "--out", str(tmp_path / "det"), *ONE_STEP]) == 0

    rows = "".join(f"train/{number}.png,{'even' if number % 2 else 'odd'}\n" for number in range(4))
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}")
    images = str(tmp_path / "yolo/images")
    assert convert_data.main(["table", str(tmp_path / "labels.csv"), "--images", images, "--out", str(classify)]) == 0
    assert "tools/hold_out.py train_cls" in (said := capsys.readouterr().out) and "no faults found" in said
    assert hold_out.main(["train_cls", "--data", str(classify), "--out", str(held), "--share", "0.4"]) == 0
    assert train_cls.main(["tiny", "--data", str(held), "--out", str(tmp_path / "cls"), *ONE_STEP]) == 0


def test_polygons_as_label_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_yolo(tmp_path / "yolo")
    for path in data.glob("labels/*/*.txt"):
        path.write_text("0 0 0 0.5 0 0.5 0.5 0 0.5\n1 0.5 0.5 1 0.5 1 1 0.5 1\n")
    flags = ["--out", str(tmp_path / "out"), "--label-maps", "--background", "sky"]
    assert convert_data.main(["yolo", str(data), *flags]) == 0
    said = capsys.readouterr().out
    assert "train: 4 label maps of split 'train', 8 objects drawn" in said and "no faults found" in said
    map_HW = np.asarray(Image.open(tmp_path / "out/labels/val/4.png"))
    assert (map_HW[0, 0], map_HW[-1, -1], map_HW[0, -1]) == (1, 2, 0)


def test_what_the_tool_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_yolo(tmp_path / "yolo")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert convert_data.main(["yolo", str(data), "--out", str(data / "coco")]) == 1
    assert "would be written into" in capsys.readouterr().err
    assert convert_data.main(["yolo", str(data / "data.yaml"), "--out", str(data / "images")]) == 1
    assert "would be written into" in capsys.readouterr().err
    assert convert_data.main(["voc", str(data), "--out", str(tmp_path / "out")]) == 1
    assert "error: " in (said := capsys.readouterr().err) and "A VOC data set has Annotations/*.xml" in said
    for flags in (["--background", "sky"], ["--label-maps", "--boxes-only"]):
        assert convert_data.main(["yolo", str(data), "--out", str(tmp_path / "out"), *flags]) == 1
        assert "it goes without --boxes-only" in capsys.readouterr().err
    (data / "labels/train/0.txt").write_text("0 1.7 0.5 0.1 0.1")
    assert convert_data.main(["yolo", str(data), "--out", str(tmp_path / "out")]) == 1
    assert "labels/train/0.txt, line 1: coordinate 1.7; coordinates are fractions" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_fault_of_the_result_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes that the source states and that are not its images' are what training would stop at."""
    draw(tmp_path / "set/train/a.png", 1)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set/train/_annotations.coco.json").write_text(json.dumps(content))
    assert convert_data.main(["coco", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "have another size than stated: a.png is 64x48, stated 48x64" in said and "faults:" in said
    assert check_data.main(["coco", str(tmp_path / "out"), "--sheet", str(tmp_path / "sheet.png")]) == 1
