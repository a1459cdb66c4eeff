"""An MAE from Python, against what tools/reconstruct.py draws."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.images.reading import read_rgb
from mae_transfer import load_mae
from pretraining.augment import validation_view
from pretraining.gallery import Options, mask_noise, open_run
from pretraining.mae.pictures import pasted, pixels
from scenes.layouts import ScenesIndex
from tools import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, few_scenes: ScenesIndex) -> Path:
    out = tmp_path_factory.mktemp("mae") / "run"
    flags = ["--data", str(few_scenes.imagenet), "--out", str(out), "--steps", "1", "--batch-size", "4"]
    assert pretrain.main(["tiny", *flags]) == 0
    return out


@pytest.fixture
def files(few_scenes: ScenesIndex) -> list[Path]:
    return sorted((few_scenes.coco / "val2017").iterdir())[:2]


def test_reconstructions_are_those_of_the_tool(run: Path, files: list[Path]) -> None:
    made = load_mae(run).reconstruct(files, seed=3)
    shown = open_run(run)
    assert shown.autoencoder is not None
    view = validation_view((64, 64), shown.normalisation)
    image = torch.stack([view(read_rgb(path)) for path in files])
    drawn = pasted(shown.autoencoder.eval(), image, mask_noise(shown, Options(seed=3), "random", 2))
    for one, expected in ((made.masked, drawn.masked), (made.pasted, drawn.pasted), (made.image, image)):
        assert one.shape == (2, 64, 64, 3)
        np.testing.assert_array_equal(one, np.stack([pixels(x, shown.normalisation) for x in expected]))


def test_three_quarters_are_masked_and_the_error_is_theirs(run: Path, files: list[Path]) -> None:
    made = load_mae(run).reconstruct(files)
    hidden = (made.masked == 0.5).all(axis=3)
    # 48 of 64 patches of 8 x 8 pixels; a visible pixel of exactly that grey would be counted too
    assert hidden.sum(axis=(1, 2)).tolist() == [48 * 64] * 2
    np.testing.assert_array_equal(made.pasted[~hidden], made.image[~hidden])
    by_hand = [np.sqrt(((made.pasted[n] - made.image[n])[hidden[n]] ** 2).mean()) for n in range(2)]
    np.testing.assert_allclose(made.error, by_hand, rtol=1e-6)  # float32, summed in another order
    assert load_mae(run).reconstruct(files, mask_ratio=0.5, seed=1).error != made.error


def test_what_reconstructs_nothing_is_refused(run: Path, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone\.safetensors: has no decoder, so it reconstructs nothing"):
        load_mae(run / "backbone.safetensors")
    with pytest.raises(ValueError, match=r"holds no record\.json, so it is no run"):
        load_mae(tmp_path)
    with pytest.raises(ValueError, match="is a run, which knows its weights"):
        load_mae(run, target="pixels")
    with pytest.raises(ValueError, match=r"mask_ratio 0\.99 keeps none of 64 patches"):
        load_mae(run).reconstruct(files, mask_ratio=0.99)
