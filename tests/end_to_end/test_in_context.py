"""Masks by example from the command line: scored, of folders, and painted by an MAE that saw canvases."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from engine.images.reading import read_rgb
from engine.records.record import read_record
from engine.records.results_file import read_results
from metrics.foreground import resampler
from scenes.layouts import ScenesIndex
from segmentation.spec import IN_CONTEXT
from tools import export_tables, in_context, make_canvases, pretrain, run_benchmark

VIT = "vit_demo_tiny_patch8"


def run(*words: object) -> int:
    return in_context.main([VIT, *map(str, words)])


def test_a_record_with_its_baselines(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "b.safetensors", ViT(FAMILY[VIT]), source="mae")
    out, given = tmp_path / "out", ("--data", few_scenes.coco, "--shots", 9, "--init", tmp_path / "b.safetensors")
    assert run(*given, "--out", out) == 0
    said = capsys.readouterr().out
    record = read_record(out / "in_context")
    ks = (1, 3, 10, 30)
    names = {f"{kind}_k{k}" for kind in ("raw", "standardised", "position") for k in ks}
    names |= {"random_weights", "copied_mask", "mean_mask", "other_class"}
    assert {*record.metrics} == {"foreground_iou", "box_iou", *names, *(f"{name}_box" for name in names)}
    assert record.metrics["foreground_iou"] == record.metrics["standardised_k30"]
    assert record.config["leading"] == "standardised_k30" and record.weights_source == "mae"
    assert record.primary_metric == "foreground_iou" and record.precision == "32-true"
    assert any("classes with fewer than 9 examples, of which all are shown" in note for note in record.data_notes)
    assert any("queries without a predicted pixel, of IoU 0: " in note for note in record.data_notes)
    assert "standardised_k30" in said and "  leads" in said and record.pictures == ("pictures/in_context.png",)
    lines = [result.values for result in read_results(out / "in_context" / "results.jsonl")]
    again = resampler(lines)(np.ones((1, len(lines)), dtype=np.int64))
    assert {name: value[0] for name, value in again.items()} == pytest.approx(
        {name: record.metrics[name] for name in ("foreground_iou", "box_iou")}
    )
    assert IN_CONTEXT.scored(record.config, [*record.metrics])[1] == "retrieval from masks"
    with (out / "in_context" / "per_class.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    asked = sum(int(row["queries"]) for row in rows)
    assert asked == sum(len(line["queries"]) for line in lines)
    mean = sum(int(row["queries"]) * float(row["foreground_iou"]) for row in rows) / asked
    assert mean == pytest.approx(record.metrics["foreground_iou"], abs=1e-3)
    assert run(*given, "--out", out) == 1
    assert "holds a record already; give another --out" in capsys.readouterr().err


def test_one_query_with_a_box(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    content = json.loads((few_scenes.coco / "annotations/instances_val2017.json").read_text())
    large = next(each for each in content["annotations"] if each["area"] > 0.1 * 64 * 64)
    content["images"] = [each for each in content["images"] if each["id"] == large["image_id"]]
    content["annotations"] = [large]
    (tmp_path / "one.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert run("--data", few_scenes.coco, "--val-json", tmp_path / "one.json", "--prompt", "box", "--out", out) == 0
    record = read_record(out / "in_context")
    (result,) = read_results(out / "in_context" / "results.jsonl")
    (query,) = result.values["queries"]
    assert query["true_box"] == large["bbox"] and query["labelled"] == large["bbox"][2] * large["bbox"][3]
    assert not {"random_weights", "other_class"} & {*record.metrics}  # these are random, and there is one class


def test_classes_that_the_memory_lacks(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((few_scenes.coco / "annotations/instances_train2017.json").read_text())
    content["annotations"] = [each for each in content["annotations"] if each["area"] > 0.1 * 64 * 64][:1]
    (tmp_path / "few.json").write_text(json.dumps(content))
    given = ("--data", few_scenes.coco, "--train-json", tmp_path / "few.json")
    assert run(*given, "--out", tmp_path / "out") == 0
    record = read_record(tmp_path / "out" / "in_context")
    assert any(note.startswith("classes without an example to show: 4 (") for note in record.data_notes)
    assert len(read_results(tmp_path / "out" / "in_context" / "results.jsonl")) == 1
    capsys.readouterr()
    assert run(*given, "--least-area", 0.45, "--out", tmp_path / "none") == 1
    assert "no class has both an example and a query: of 8 classes 0 have images to show" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_unreadable_images_are_counted(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    from shutil import copytree

    data = copytree(few_scenes.coco, tmp_path / "coco")
    for split in ("train2017", "val2017"):
        sorted((data / split).iterdir())[0].write_bytes(b"no image")
    assert run("--data", data, "--shots", 5, "--out", tmp_path / "out") == 0
    whole, lacking = (few_scenes.coco, read_record(tmp_path / "out" / "in_context"))
    assert run("--data", whole, "--shots", 5, "--out", tmp_path / "whole") == 0
    lines = [len(read_results(tmp_path / name / "in_context" / "results.jsonl")) for name in ("out", "whole")]
    assert lines[0] == lines[1] - 1 and len(lacking.unreadable_images) == 2


@pytest.fixture
def folders(few_scenes: ScenesIndex, tmp_path: Path) -> tuple[Path, Path]:
    """Two examples with masks, of which one is larger, and two queries."""
    shown, asked = tmp_path / "shown", tmp_path / "asked"
    shown.mkdir()
    asked.mkdir()
    for number, path in enumerate(sorted((few_scenes.coco / "train2017").iterdir())[:2]):
        size = (64, 64) if number == 0 else (100, 80)
        Image.open(path).resize(size).save(shown / path.name)
        mask = np.zeros(size[::-1], dtype=np.uint8)
        mask[10:40, 10:40] = 255
        Image.fromarray(mask).save(shown / f"{path.stem}.png")
    for number, path in enumerate(sorted((few_scenes.coco / "val2017").iterdir())[:2]):
        Image.open(path).resize((64, 48 + 16 * number)).save(asked / path.name)
    return shown, asked


def test_folders(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, asked = folders
    (asked / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "answers"
    assert run("--examples", shown, "--queries", asked, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "2 examples" in printed and "left out: " in printed and "broken.jpg" in printed
    entries = json.loads((out / "boxes.json").read_text())
    assert [entry["image"] for entry in entries] == sorted(path.name for path in asked.glob("0*.jpg"))
    for entry in entries:
        mask, query = (np.asarray(read_rgb(path)) for path in (out / entry["mask"], asked / entry["image"]))
        assert mask.shape == query.shape and {*np.unique(mask)} <= {0, 255}
        mask = mask[..., 0]
        assert entry["foreground_share"] == pytest.approx((mask > 0).mean())
        if entry["box"] is None:
            assert not mask.any()
        else:
            left, top, width, height = map(int, entry["box"])
            assert mask[top : top + height, left : left + width].any()
    assert read_rgb(out / "in_context.png").width > 100
    given = ("--examples", shown, "--queries", asked, "--threshold")
    assert run(*given, 0.99, "--out", tmp_path / "few") == run(*given, 0, "--out", tmp_path / "many") == 0
    assert "--threshold is 0.99, and a lower one finds more" in capsys.readouterr().out
    entries = {name: json.loads((tmp_path / name / "boxes.json").read_text()) for name in ("few", "many")}
    assert [entry["box"] is None for entry in entries["few"]] == [True, True]
    assert all(entry["foreground_share"] > 0.9 for entry in entries["many"])
    for words, expected in (
        (("--examples", shown), "both --examples and --queries"),
        ((), "give --data, to be scored, or both"),
        (("--examples", shown, "--queries", asked, "--data", shown), "give --data, to be scored, or both"),
        (("--examples", shown, "--queries", tmp_path / "nowhere"), "nowhere: no such folder; mend --queries"),
        (("--examples", shown, "--queries", asked, "--shots", 2), "--shots is for --data"),
        (("--examples", shown, "--queries", asked, "--init", "nowhere"), "nowhere: no such file of weights or run"),
    ):
        assert run(*words, "--out", tmp_path / "no") == 1
        assert expected in capsys.readouterr().err
    assert run("--examples", shown, "--queries", asked, "--out", shown / "new") == 1
    assert "which is read; give another --out" in capsys.readouterr().err
    assert not (tmp_path / "no").exists() and not (shown / "new").exists()


@pytest.mark.slow
def test_an_mae_that_saw_canvases_paints(
    few_scenes: ScenesIndex, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canvases, weights = tmp_path / "canvases", tmp_path / "mae"
    assert make_canvases.main([VIT, "--data", str(few_scenes.coco), "--out", str(canvases)]) == 0
    assert {path.name for path in canvases.iterdir()} == {"train", "val"}
    assert make_canvases.main([VIT, "--data", str(few_scenes.coco), "--out", str(canvases)]) == 1
    assert "holds something already" in capsys.readouterr().err
    words = ["tiny_half", "--data", str(canvases), "--target", "pixels", "--augmentation", "none", "--steps", "2"]
    assert pretrain.main([*words, "--batch-size", "4", "--out", str(weights)]) == 0
    given = ("--method", "inpainting", "--init", weights)
    assert run("--data", few_scenes.coco, *given, "--out", tmp_path / "out") == 0
    record = read_record(tmp_path / "out" / "in_context")
    assert record.metrics["foreground_iou"] == record.metrics["inpainting"] and "random_weights" in record.metrics
    assert IN_CONTEXT.scored(record.config, [*record.metrics])[1] == "inpainting from masks"
    assert run("--examples", folders[0], "--queries", folders[1], *given, "--out", tmp_path / "answers") == 0
    assert len([*(tmp_path / "answers" / "masks").iterdir()]) == 2
    capsys.readouterr()
    assert in_context.main(["vit_demo_patch8", "--data", str(few_scenes.coco), *map(str, given), "--out", "o"]) == 1
    assert f"give {VIT} --image-size 64 64" in capsys.readouterr().err


STUDY = f"""
name: by-example
seeds: [0, 1]
arms:
  random: random
  mae: {{init: mae.safetensors}}
compare: {{claim: mae, against: random}}
tasks:
  shown: {{tool: in_context, recipe: {VIT}, data: coco, queries_per_class: 2}}
"""


@pytest.mark.slow
def test_it_is_a_task_of_a_study(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "mae.safetensors", ViT(FAMILY[VIT]), source="mae")
    (tmp_path / "coco").symlink_to(few_scenes.coco)
    (tmp_path / "study.yaml").write_text(STUDY)
    out = tmp_path / "out"
    for expected in ("4 runs completed now", "4 were recorded already"):
        code = run_benchmark.main([str(tmp_path / "study.yaml"), "--data", str(tmp_path), "--out", str(out)])
        printed = capsys.readouterr().out
        assert code == 0 and expected in printed, printed
    assert export_tables.main([str(out), "--format", "csv"]) == 0
    assert "transfer,shown,foreground_iou,mae,mean,,2," in capsys.readouterr().out
    assert export_tables.main([str(out), "--format", "html", "--out", str(tmp_path / "page.html")]) == 0
    assert "foreground_iou of each class" in (tmp_path / "page.html").read_text()
