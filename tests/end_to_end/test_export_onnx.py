"""The export tool on short runs of the three tasks."""

from pathlib import Path

import numpy as np
import pytest

from scenes.layouts import ScenesIndex
from tools import export_onnx, pretrain, train_cls, train_det, train_seg

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "layout", "outputs"),
    [
        (train_cls, "imagenet", {"logits": (2, 8)}),
        (train_seg, "ade20k", {"logits": (2, 16, 64, 64)}),
        (train_det, "coco", {f"p{level}": (2, 64, 64 >> level, 64 >> level) for level in range(1, 6)}),
    ],
)
def test_a_run_becomes_a_file(
    train, layout, outputs, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["tiny", "--data", str(few_scenes.root / layout), "--out", str(tmp_path / "run")]
    assert train.main([*run, "--steps", "1", "--batch-size", "4"]) == 0
    file = tmp_path / "model.onnx"
    assert export_onnx.main([str(tmp_path / "run"), "--out", str(file)]) == 0
    assert f"{file}: step 1 of {tmp_path / 'run'}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(file))
    found = session.run(None, {"image": np.zeros((2, 3, 64, 64), dtype=np.float32)})
    assert {output.name: value.shape for output, value in zip(session.get_outputs(), found, strict=True)} == outputs


@pytest.mark.slow
def test_a_run_without_an_answer_is_refused(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["tiny", "--data", str(few_scenes.root / "imagenet"), "--out", str(tmp_path / "run")]
    assert pretrain.main([*run, "--steps", "1", "--batch-size", "8"]) == 0
    assert export_onnx.main([str(tmp_path / "run"), "--out", str(tmp_path / "m.onnx")]) == 1
    assert (
        "a run of task 'mae', which makes no predictions on images without labels and has nothing to"
        in capsys.readouterr().err
    )
    assert export_onnx.main([str(tmp_path / "none"), "--out", str(tmp_path / "m.onnx")]) == 1
    assert "none" in capsys.readouterr().err
