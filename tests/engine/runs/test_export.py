"""ONNX files: equal to PyTorch, normalised inside, free in the batch, refused when wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import engine.runs.export
from engine.runs.export import Exportable, Normalised, export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


class Mean(nn.Module):
    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean(dim=(2, 3))


def means() -> Exportable:
    module = Normalised(Mean(), mean=torch.tensor([10.0, 20.0, 30.0]), std=torch.tensor([1.0, 2.0, 4.0]))
    return Exportable(module=module, size=(4, 6), outputs=("means",))


def test_pixels_are_normalised_in_the_file_and_the_batch_is_free(tmp_path: Path) -> None:
    done = export_onnx(means(), tmp_path / "m.onnx")
    assert done.shapes == {"means": (1, 3)} and done.differences["means"] < 1e-6
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (found,) = session.run(None, {"image": np.full((5, 3, 4, 6), 50.0, dtype=np.float32)})
    np.testing.assert_allclose(found, np.tile([40.0, 15.0, 5.0], (5, 1)), rtol=1e-6)


def test_an_answer_that_differs_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.runs.export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"m\.onnx: not written, ONNX Runtime's output differs .* another --opset"):
        export_onnx(means(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
