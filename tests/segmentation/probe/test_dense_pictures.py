"""Colours of patches: principal components by NumPy's SVD, one basis for all images, a page of three columns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from segmentation.probe import outcomes, run
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.pictures import basis_of
from tests.segmentation.probe.dense_samples import TINY


def test_components_are_those_of_svd() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)) * [5, 1, 3, 0.1, 2, 0.2] + 7
    basis = basis_of(torch.from_numpy(x))
    axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:3].T
    np.testing.assert_allclose(np.abs(basis.axes_D3.numpy()), np.abs(axes), atol=1e-6)
    made = basis.colours(torch.from_numpy(x))
    assert made.shape == (300, 3) and made.dtype == np.uint8
    assert (made == 0).any(axis=0).all() and (made == 255).any(axis=0).all()
    assert np.array_equal(basis_of(torch.from_numpy(x)).colours(torch.from_numpy(x[:5])), made[:5])
    assert (basis_of(torch.ones(4, 6)).colours(torch.ones(2, 6)) == 0).all()  # no variance


def test_page(few_scenes: ScenesIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DenseProbeConfig(backbone=TINY, memory=50, linear_iterations=1)

    def probed(name: str) -> Path:
        out, cache = tmp_path / name, tmp_path / "cache"
        run.run_dense_probes(config, data=few_scenes.ade20k, init=None, out=out, cache=cache, say=lambda _: None)
        return out / "knn_segmentation"

    record = read_record(probed("out"))
    assert record.pictures == ("pictures/patches.png",) and not record.warnings
    with Image.open(tmp_path / "out/knn_segmentation/pictures/patches.png") as page:
        assert page.width == 3 * 224 + 2 * 4 and page.height > 6 * 100
    monkeypatch.setattr(outcomes, "draw_patches", lambda *_: 1 / 0)
    record = read_record(probed("other"))
    assert record.pictures == () and "patches.png could not be drawn (ZeroDivisionError" in record.warnings[0]
