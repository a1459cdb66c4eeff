"""No tool writes over what it reads: by the same path, a link, a relative path, or from within a folder of images."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from engine.records.record import write_record
from pretraining.recipes import RECIPES
from scenes.layouts import ScenesIndex
from tests.benchmark.conftest import make_record
from tools import (
    check_data,
    convert_checkpoint,
    export_tables,
    hold_out,
    in_context,
    make_canvases,
    make_scenes,
    make_semantic,
    pretrain,
    probe,
    reconstruct,
    robustness,
    run_benchmark,
    train_cls,
    train_det,
    train_seg,
)

# tool, arguments before the output's flag (DATA is a copy of the scenes), the flag, and what it is given
TRAIN = ["tiny", "--steps", "1", "--batch-size", "4", "--data"]
CASES: dict[str, tuple[Callable[[list[str]], int], list[str], str]] = {
    "check coco": (check_data.main, ["coco", "DATA/coco", "--sheet"], "coco/val2017/IMAGE"),
    "check coco's list": (check_data.main, ["coco", "DATA/coco", "--sheet"], "coco/annotations/instances_val2017.json"),
    "check ade20k": (check_data.main, ["ade20k", "DATA/ade20k", "--sheet"], "ade20k/images/validation/IMAGE"),
    "check label maps": (check_data.main, ["ade20k", "DATA/ade20k", "--sheet"], "ade20k/annotations/validation/IMAGE"),
    "export a record": (export_tables.main, ["DATA/runs", "--out"], "runs/classification-mae-seed0/record.json"),
    "export results": (export_tables.main, ["DATA/runs", "--out"], "runs/classification-mae-seed0/results.jsonl"),
    "scenes": (make_scenes.main, ["--out"], "imagenet"),
    "probe": (probe.main, ["vit_demo_patch8", "--data", "DATA/imagenet", "--out"], "imagenet"),
    "probe, within": (probe.main, ["vit_demo_patch8", "--data", "DATA/imagenet", "--out"], "imagenet/val/new"),
    "probe's cache": (
        probe.main,
        ["vit_demo_patch8", "--data", "DATA/imagenet", "--out", "DATA/new", "--cache"],
        "imagenet/train/features",
    ),
    "reconstruct": (
        reconstruct.main,
        ["DATA/weights/backbone.safetensors", "DATA/imagenet/val", "--out"],
        "imagenet/val",
    ),
    "reconstruct, within": (
        reconstruct.main,
        ["DATA/weights/backbone.safetensors", "DATA/imagenet/val", "--out"],
        "imagenet/val/new",
    ),
    "by example": (in_context.main, ["vit_demo_patch8", "--data", "DATA/coco", "--out"], "coco"),
    "by example, within": (in_context.main, ["vit_demo_patch8", "--data", "DATA/coco", "--out"], "coco/val2017/new"),
    "by example, of folders": (
        in_context.main,
        ["vit_demo_patch8", "--examples", "DATA/weights", "--queries", "DATA/imagenet/val", "--out"],
        "imagenet/val/new",
    ),
    "canvases": (make_canvases.main, ["vit_demo_patch8", "--data", "DATA/coco", "--out"], "coco"),
    "canvases, within": (make_canvases.main, ["vit_demo_patch8", "--data", "DATA/coco", "--out"], "coco/val2017/new"),
    "hold out": (hold_out.main, ["train_cls", "--data", "DATA/imagenet", "--out"], "imagenet"),
    "hold out, within": (hold_out.main, ["train_cls", "--data", "DATA/imagenet", "--out"], "imagenet/train/new"),
    "hold out of coco": (hold_out.main, ["train_det", "--data", "DATA/coco", "--out"], "coco/train2017/new"),
    "hold out of maps": (hold_out.main, ["train_seg", "--data", "DATA/ade20k", "--out"], "ade20k/images/training/new"),
    "colours": (
        make_semantic.main,
        ["colours", "--source", "DATA/ade20k/images", "--palette", "DATA/classes.txt", "--out"],
        "ade20k/images/new",
    ),
    "pretrain": (pretrain.main, [*TRAIN, "DATA/imagenet", "--out"], "imagenet"),
    "pretrain, within": (pretrain.main, [*TRAIN, "DATA/imagenet", "--out"], "imagenet/train/new"),
    "pretrain's weights": (
        pretrain.main,
        [*TRAIN, "DATA/imagenet", "--init", "DATA/weights/backbone.safetensors", "--out"],
        "weights",
    ),
    "classify": (train_cls.main, [*TRAIN, "DATA/imagenet", "--out"], "imagenet"),
    "classify, within": (train_cls.main, [*TRAIN, "DATA/imagenet", "--out"], "imagenet/val/new"),
    "classify's list": (
        train_cls.main,
        [*TRAIN, "DATA/imagenet", "--train-list", "DATA/weights/train_list.txt", "--out"],
        "weights",
    ),
    "detect": (train_det.main, [*TRAIN, "DATA/coco", "--out"], "coco"),
    "detect, within": (train_det.main, [*TRAIN, "DATA/coco", "--out"], "coco/val2017/new"),
    "segment": (train_seg.main, [*TRAIN, "DATA/ade20k", "--out"], "ade20k"),
    "segment, within": (train_seg.main, [*TRAIN, "DATA/ade20k", "--out"], "ade20k/images/training/new"),
    "convert": (
        convert_checkpoint.main,
        ["convert", "DATA/weights/backbone.safetensors", "--out"],
        "weights/backbone.safetensors",
    ),
    "study": (run_benchmark.main, ["DATA/study/study.yaml", "--dry-run", "--out"], "study"),
}
# these have refused it in their own words all along
OTHER_WORDS = {"scenes": "is not empty and has no scenes.json"}


@pytest.fixture(scope="module")
def data(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("over") / "data"
    shutil.copytree(few_scenes.root, root)
    (root / "weights").mkdir()
    write_checkpoint(root / "weights" / "backbone.safetensors", ViT(RECIPES["tiny"]().encoder), source="mae")
    (root / "weights" / "train_list.txt").write_text("".join(p.name + "\n" for p in root.glob("imagenet/train/*/*")))
    (root / "classes.txt").write_text("one\t#ff0000\ntwo\t#00ff00\n")
    for arm in ("mae", "supervised"):
        folder = root / "runs" / f"classification-{arm}-seed0"
        write_record(folder, make_record("classification", arm, 0, {"top1": 50.0}))
        (folder / "results.jsonl").write_text(json.dumps({"image_id": "a", "top1": 1}) + "\n")
    (root / "study").mkdir()
    (root / "study" / "study.yaml").write_text(
        "# mine\nname: mine\nseeds: [0]\ncompare: {claim: a, against: b}\n"
        "arms: {a: random, b: {init: ../weights/backbone.safetensors}}\n"
        "tasks: {t: {tool: train_cls, recipe: tiny, data: ../imagenet, steps: 1}}\n"
    )
    return root


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("form", ["same", "link", "relative"])
@pytest.mark.parametrize("case", CASES)
def test_refused(
    case: str,
    form: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main, before, target = CASES[case]
    path = data / target
    if path.name == "IMAGE":
        path = sorted(p for p in path.parent.iterdir() if p.is_file())[0]
    monkeypatch.chdir(data)
    if form == "link":
        (tmp_path / "link").symlink_to(path.parent)
        path = tmp_path / "link" / path.name
    if form == "relative":
        path = Path(os.path.relpath(path))
    held = _bytes(data)
    arguments = [text.replace("DATA", str(data)) for text in before]
    assert main([*arguments, str(path)]) == 1
    said = capsys.readouterr().err
    wanted = OTHER_WORDS.get(case, "would be written")
    assert wanted in said and (case in OTHER_WORDS or "which is read; give another --out" in said), said
    assert _bytes(data) == held


def test_robustness_within_its_images(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is RUN/robustness/FOLDER.json."""
    out = tmp_path / "run"
    assert train_cls.main([*TRAIN, str(data / "imagenet"), "--out", str(out)]) == 0
    shutil.copytree(data / "imagenet" / "val", out / "robustness")
    assert robustness.main([str(out), "folders", str(out / "robustness")]) == 1
    assert f"would be written into {out / 'robustness'}, which is read" in capsys.readouterr().err
    assert not (out / "robustness" / "robustness.json").exists()


def test_what_lies_beside_is_no_input(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder beside the splits, also one called as a split, and a table beside the runs."""
    monkeypatch.chdir(data / "imagenet")
    assert train_cls.main([*TRAIN, ".", "--out", "runs/val"]) == 0
    assert train_cls.main([*TRAIN, ".", "--out", "runs/val", "--resume"]) == 0
    assert export_tables.main([str(data / "runs"), "--out", str(data / "runs" / "table.md")]) == 0
    assert export_tables.main([str(data / "runs"), "--out", str(data / "runs" / "table.md")]) == 0
