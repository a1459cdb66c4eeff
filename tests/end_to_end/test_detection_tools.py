"""A detection run and what the tools make of it: evaluation, results file, predictions, the look at the data."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.records.record import read_record
from engine.records.results_file import read_results
from metrics.coco_ap import ap_from_matches
from scenes.layouts import ScenesIndex
from tools import check_data, evaluate, predict, train_det


@pytest.fixture(scope="module")
def run(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the smallest recipe."""
    out = tmp_path_factory.mktemp("det") / "run"
    flags = ["--data", str(few_scenes.coco), "--out", str(out), "--steps", "2", "--batch-size", "2"]
    assert train_det.main(["tiny", *flags]) == 0
    return out


def test_results_file_gives_the_records_numbers(
    run: Path, few_scenes: ScenesIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = few_scenes.coco / "annotations" / "instances_val2017.json"
    flags = ["--annotations", str(annotations), "--detections", str(run / "detections.json")]
    assert evaluate.main(["coco", *flags]) == 0
    printed = dict(line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines())
    metrics = read_record(run).metrics
    assert {name: f"{value:.4f}" for name, value in metrics.items()}.items() <= printed.items()
    assert "box_ap of ball" in printed
    rows = [result.values["box_matches"] for result in read_results(run / "results.jsonl")]
    assert ap_from_matches(rows, [1] * len(rows)) == pytest.approx(metrics["box_ap"], abs=1e-9)
    with (run / "per_class.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)][:2] == ["ball", "cone"]
    assert "pictures/precision.png" in read_record(run).pictures


def test_predictions_on_files_folders_and_patterns(
    run: Path, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for name, shape in (("one.png", (50, 80, 3)), ("a/two.jpg", (64, 40, 3)), ("a/one.png", (30, 30, 3))):
        Image.fromarray(np.random.default_rng(1).integers(0, 255, shape, np.uint8)).save(tmp_path / name)
    out = tmp_path / "out"
    arguments = [str(run), str(tmp_path / "one.png"), str(tmp_path / "a"), str(tmp_path / "**" / "*.jpg")]
    assert predict.main([*arguments, "--out", str(out)]) == 0
    entries = json.loads((out / "predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in entries] == ["one.png", "one.png", "two.jpg"]
    assert [(entry["height"], entry["width"]) for entry in entries] == [(50, 80), (30, 30), (64, 40)]
    named = [entry["pictures"] for entry in entries]
    assert named[0] == ["one.png"] and named[2] == ["two.png"] and re.fullmatch(r"one-[0-9a-f]{8}\.png", named[1][0])
    assert {path.name for path in out.glob("*.png")} == {name for names in named for name in names}
    (tmp_path / "a" / "two.jpg").write_bytes(b"no image")
    capsys.readouterr()
    assert predict.main([*arguments, "--out", str(out)]) == 1
    assert "two.jpg: unreadable image" in capsys.readouterr().out
    assert len(json.loads((out / "predictions.json").read_text())) == 2
    assert predict.main([str(run), str(tmp_path / "none*.png")]) == 1
    assert "no such image, folder, or pattern that matches a file" in capsys.readouterr().err


def test_predictions_on_thin_images_and_names_of_no_text(
    run: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """One image that cannot be read ends nothing, whatever its name."""
    shapes = {"caf\udce9.png": (20, 30, 3), "$a$ $b.png": (12, 2400, 3), "c.png": (1, 5000, 3), "d.png": (1, 1, 3)}
    for name, shape in shapes.items():
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / name)
    (tmp_path / "bad\udce9.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert (
        predict.main([str(run), *(str(tmp_path / name) for name in (*shapes, "bad\udce9.png")), "--out", str(out)]) == 1
    )
    assert b".png: unreadable image" in capfdbinary.readouterr().out
    entries = json.loads((out / "predictions.json").read_text())
    assert [(entry["height"], entry["width"], 3) for entry in entries] == list(shapes.values())
    assert len(list(out.glob("*.png"))) == len(shapes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a COCO results file, which is a list of detections"),
        ("[", "not valid JSON"),
        ('[{"image_id": 1, "score": 1}]', "detection 1 has no 'category_id'"),
        ('[{"image_id": 10000001, "category_id": 1, "score": 1}]', "has detections without `bbox`, and no masks"),
        ('[{"image_id": -7, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}]', "annotations do not list -7"),
    ],
)
def test_what_is_no_results_file(
    content: str, message: str, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "detections.json"
    path.write_text(content)
    annotations = few_scenes.coco / "annotations" / "instances_val2017.json"
    assert evaluate.main(["coco", "--annotations", str(annotations), "--detections", str(path)]) == 1
    assert message in (said := capsys.readouterr().err) and said.startswith("error: ")


def test_a_look_at_the_data(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert check_data.main(["coco", str(few_scenes.coco), "--sheet", str(sheet)]) == 0
    assert "no faults found" in (said := capsys.readouterr().out) and f"contact sheet: {sheet}" in said
    assert sheet.stat().st_size > 10_000
    assert check_data.main(["coco", str(tmp_path / "no")]) == 1
    assert "no such folder" in capsys.readouterr().err
