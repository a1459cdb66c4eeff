"""Hidden patches are painted by the decoder of a run or a file; what cannot paint is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import RANDOM
from backbones.weights.normalisation import IMAGENET
from engine.records.record import read_record
from engine.training.loop import fit
from pretraining.gallery import Decoder
from pretraining.mae.config import MAEConfig
from pretraining.mae.model import MaskedAutoencoder, unpatchify
from pretraining.mae.painting import Painter, open_painter, random_painter
from pretraining.spec import MAE
from tests.pretraining.conftest import TINY

HIDDEN = np.zeros((4, 4), dtype=bool)
HIDDEN[2:, 2:] = True


def model() -> MaskedAutoencoder:
    return MaskedAutoencoder(
        ViT(TINY), mask_ratio=0.75, decoder_dim=12, decoder_depth=1, decoder_heads=3, normalise_target=False
    )


def test_hidden_patches_are_predicted_and_the_others_are_as_they_were() -> None:
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    painter = Painter(model(), IMAGENET, RANDOM)
    made = painter.paint(image, HIDDEN)
    assert made.shape == (2, 32, 32, 3)
    pixels = image.permute(0, 2, 3, 1).numpy()
    assert (
        np.abs(made[:, :16] - pixels[:, :16]).max() < 1e-3 and np.abs(made[:, :, :16] - pixels[:, :, :16]).max() < 1e-3
    )
    # by the model's own parts
    autoencoder = painter.model
    with torch.no_grad():
        noise = torch.from_numpy(HIDDEN.reshape(-1)).float()[None].expand(2, -1)
        made_BNP = autoencoder.reconstruct(painter.normalise(image), noise).prediction_BNP
        picture = unpatchify(made_BNP, patch=8, grid=(4, 4)) * painter.normalise.std + painter.normalise.mean
    assert np.allclose(made[:, 16:, 16:], picture.permute(0, 2, 3, 1)[:, 16:, 16:], atol=1e-3)
    # what is hidden has no part in it
    other = image.clone()
    other[:, :, 16:, 16:] = 0
    assert np.array_equal(painter.paint(other, HIDDEN)[:, 16:, 16:], made[:, 16:, 16:])


def test_random_weights_of_the_same_shape() -> None:
    painter = Painter(model(), IMAGENET, RANDOM)
    other = painter.untrained()
    shapes = {name: value.shape for name, value in painter.model.state_dict().items()}
    assert {name: value.shape for name, value in other.model.state_dict().items()} == shapes
    assert not torch.equal(other.model.decoder_pred.weight, painter.model.decoder_pred.weight)
    assert random_painter(TINY).encoder.architecture == TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step that predicts pixels."""
    from PIL import Image

    from tests.pretraining.conftest import RUN

    root = tmp_path_factory.mktemp("painting")
    for split in ("train", "val"):
        (root / "data" / split).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (36, 36), (60 * number,) * 3).save(root / "data" / split / f"{number}.png")
    config = MAEConfig(
        backbone=TINY, run=RUN, decoder_dim=12, decoder_depth=1, decoder_heads=3, target="pixels", augmentation="none"
    )
    task = MAE.build(config, data=root / "data", init=None)
    fit(task, config, recipe="tiny", out=root / "run")
    return root / "run"


def test_a_run_and_its_backbone_stand_for_one_another(run: Path) -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    painters = [
        open_painter(InitialWeights(path=path), Decoder(), TINY) for path in (run, run / "backbone.safetensors")
    ]
    assert np.array_equal(*(painter.paint(image, HIDDEN) for painter in painters))
    assert {painter.report.sha256 for painter in painters} == {read_record(run).files_sha256["backbone.safetensors"]}


def test_another_vit_is_named(run: Path) -> None:
    with pytest.raises(
        ValueError, match=r"width 16, 2 blocks, patches of 8 and images of \(32, 32\).*--image-size 32 32"
    ):
        open_painter(InitialWeights(path=run), Decoder(), replace(TINY, image_size=(64, 64)))


def test_weights_that_cannot_paint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "backbone.safetensors", ViT(TINY), source="mae")
    with pytest.raises(ValueError, match=r"has no decoder, which inpainting needs; give the folder of a run"):
        open_painter(InitialWeights(path=tmp_path / "backbone.safetensors"), Decoder(), TINY)
    normalised = MaskedAutoencoder(
        ViT(TINY), mask_ratio=0.75, decoder_dim=12, decoder_depth=1, decoder_heads=3, normalise_target=True
    )
    with pytest.raises(ValueError, match=r"do not tell how bright a hidden patch is; pre-train with --target pixels"):
        Painter(normalised, IMAGENET, RANDOM)
