"""What a new user meets first: the resolved configuration, closed pipes, weights of other depths and patches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from detection.config import check_patch
from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from tools import pretrain, train_cls, train_det, train_seg

ROOT = Path(__file__).resolve().parents[2]
STEP = ["--steps", "1", "--batch-size", "4"]


def weights(folder: Path, architecture: ViTConfig) -> Path:
    torch.manual_seed(0)
    path = folder / "theirs.safetensors"
    write_checkpoint(path, ViT(architecture), source="mae")
    return path


def vit(depth: int, patch: int) -> ViTConfig:
    return ViTConfig(embed_dim=24, depth=depth, num_heads=2, patch_size=patch, image_size=(8 * patch, 8 * patch))


def test_show_prints_what_would_be_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert pretrain.main(["mae_base", "--show", "--steps", "30", "--mask-ratio", "0.5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["mask_ratio"] == 0.5 and shown["config"]["run"]["length"] == {"value": 30, "unit": "steps"}
    assert "mask_ratio: 0.75 -> 0.5" in shown["departures"] and shown["config"]["backbone"]["depth"] == 12
    init = weights(tmp_path, vit(12, 8))
    flags = ["tiny", "--show", "--init", str(init), "--init-architecture", "file"]
    assert train_seg.main(flags) == 0
    shown = json.loads(capsys.readouterr().out)["config"]
    assert (shown["backbone"]["depth"], shown["out_indices"]) == (12, [3, 5, 7, 11])
    assert train_cls.main(["tinny", "--show"]) == 1
    assert "Did you mean tiny?" in capsys.readouterr().err


@pytest.mark.parametrize("depth", [3, 12])
def test_out_indices_follow_the_depth_of_the_weights(depth: int, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    init, out = weights(tmp_path, vit(depth, 8)), tmp_path / "run"
    flags = ["tiny", "--data", str(few_scenes.ade20k), "--init", str(init), "--init-architecture", "file", *STEP]
    if depth == 3:  # which has no four blocks
        assert train_seg.main([*flags, "--out", str(out)]) == 1
        return
    assert train_seg.main([*flags, "--out", str(out)]) == 0
    record = read_record(out)
    assert record.config["out_indices"] == [3, 5, 7, 11]
    assert "out_indices: (1, 2, 3, 5) -> (3, 5, 7, 11)" in record.departures


def test_weights_of_other_patches_have_a_way(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patches of 14 px in recipes of 64 px: the message names two ways, and both work."""
    init = ["--init", str(weights(tmp_path, vit(6, 14))), "--init-architecture", "file"]
    data = ["tiny", "--data", str(few_scenes.imagenet), *STEP]
    assert train_cls.main([*data, *init, "--out", str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert "Give --init-resize-patch" in said and "(but in detection) `--patch-size 14 --image-size 70 70`" in said
    size = ["--patch-size", "14", "--image-size", "70", "70"]
    assert train_cls.main([*data, *init, *size, "--out", str(tmp_path / "b")]) == 0
    assert train_cls.main([*data, *init, "--init-resize-patch", "--out", str(tmp_path / "c")]) == 0
    assert [read_record(tmp_path / run).architecture["patch_size"] for run in "bc"] == [14, 8]
    data = ["tiny", "--data", str(few_scenes.coco), *STEP]
    assert train_det.main([*data, *init, "--out", str(tmp_path / "d")]) == 1
    assert "--init-resize-patch" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match=r"patch_size 14 makes no pyramid of strides 2 \*\* level, .* --init-resize-patch"
    ):
        check_patch(14)
    assert train_det.main([*data, *init, "--init-resize-patch", "--out", str(tmp_path / "d")]) == 0


@pytest.mark.parametrize(
    "command", ["train_cls.py tiny --help-all", "predict.py --help", "pretrain.py mae_base --show", "study_job.py -h"]
)
def test_a_closed_pipe_is_left_without_a_word(command: str) -> None:
    words = command.split()
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} tools/{' '.join(words)} | true"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_job_of_a_study_says_what_it_is() -> None:
    done = subprocess.run([sys.executable, "tools/study_job.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "run_benchmark.py STUDY --launcher slurm" in done.stdout
    assert subprocess.run([sys.executable, "tools/study_job.py"], cwd=ROOT, capture_output=True).returncode == 1
