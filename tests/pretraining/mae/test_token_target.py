"""Tokens as MAE's target: loss and picture by hand with a tokenizer of means, and a run with one of the project's."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pretraining.mae.task
from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from engine.training.loop import fit
from pretraining.gallery import Decoder, Options, make_gallery, open_any
from pretraining.mae.config import MAEConfig
from pretraining.mae.model import MaskedAutoencoder, Variant
from pretraining.mae.pictures import caption, pasted
from pretraining.mae.token_target import TokenTarget
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(16, 16))
HEADER = TokenizerHeader(vocabulary=12, downsampling=4, code_dim=5, width=6, image_size=(16, 16))
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Means:
    """Two pixels become a token: 0, 1 or 2 for dark, grey and light."""

    vocabulary, downsampling, sha256 = 3, 2, {"means": "0"}

    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        assert pixel_BCHW.shape[2:] == (4, 4)
        mean_Bhw = torch.nn.functional.avg_pool2d(pixel_BCHW.mean(dim=1, keepdim=True), 2)[:, 0]
        return (mean_Bhw * 2).round().long()

    def decode(self, token_Bhw: Tensor) -> Tensor:
        return (token_Bhw / 2)[:, None].repeat(1, 3, 1, 1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def quarters(*values: float) -> Tensor:
    """An image of four flat patches, normalised."""
    pixel = torch.tensor(values).view(1, 1, 2, 2).repeat(1, 3, 1, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (pixel - 0.5) / 0.25


def test_tokens_and_error_by_hand() -> None:
    target = TokenTarget(Means(), NORMALISATION, (2, 2))
    image = quarters(0.0, 0.5, 1.0, 1.0)
    assert target.tokens(image).tolist() == [[0, 1, 2, 2]]
    logit = torch.zeros(1, 4, 3)
    logit[0, 0, 0] = 50.0  # sure of the right one
    logit[0, 3, 1] = math.log(2)  # gives the wrong one half, the right one a quarter
    assert target.error(logit, image)[0].tolist() == pytest.approx(
        [0.0, math.log(3), math.log(3), math.log(4)], abs=1e-6
    )


def test_model_by_hand() -> None:
    target = TokenTarget(Means(), NORMALISATION, (2, 2))
    model = MaskedAutoencoder(
        ViT(TINY, train_position=False),
        mask_ratio=0.5,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=3,
        normalise_target=False,
        variant=Variant(target=target),
    )
    assert model.decoder_pred.out_features == 3
    assert not [name for name in model.state_dict() if "tokenizer" in name]
    torch.nn.init.zeros_(model.decoder_pred.weight)
    with torch.no_grad():
        model.decoder_pred.bias.copy_(torch.tensor([0.0, 0.0, math.log(2)]))  # light everywhere, by a half
    image, noise = quarters(0.0, 0.5, 1.0, 1.0), torch.tensor([[1.0, 0.0, 1.0, 0.0]])  # the first and third are masked
    loss = model((image, noise, []))["reconstruction"]
    assert loss.item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    made = pasted(model, image, noise)
    # decoded: light at the masked patches, the true tokens at the others; pasted: the true pixels there
    corners = made.predicted[0, 0, [0, 0, 15, 15], [0, 15, 0, 15]]
    assert corners.tolist() == pytest.approx([2.0, 0.0, 2.0, 2.0], abs=0.1)  # bicubic: flat but for the seams
    assert torch.equal(made.pasted[..., 8:], image[..., 8:])
    assert caption(model).startswith("target: visual tokens, as the tokenizer's decoder shows them")


@pytest.fixture
def config(mae_config: MAEConfig, tmp_path: Path) -> MAEConfig:
    torch.manual_seed(0)
    model = DiscreteVAE(vocabulary=12, downsampling=4, code_dim=5, width=6)
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, model, HEADER)
    return replace(mae_config, target="tokens", tokenizer=str(path))


def test_a_run(config: MAEConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    assert task.model.decoder_pred.out_features == 12
    record = fit(task, config, recipe="tiny", out=tmp_path / "run")
    assert record.status == "completed"
    assert set(record.extra["tokenizer"]) == {"tokenizer.safetensors"}
    # untrained, the loss is about that of guessing among twelve
    assert record.metrics["val_loss"] == pytest.approx(math.log(12), abs=1.5)
    shown = open_any(InitialWeights(path=tmp_path / "run"), Decoder())
    made = make_gallery(shown, data / "val", tmp_path / "out", Options(images=2))
    assert "reconstructions.png" in {path.name for path in made.pictures}


def test_refusals(config: MAEConfig, data: Path) -> None:
    with pytest.raises(ValueError, match="a tokenizer was given, and the target is 'pixels'; add --target tokens"):
        replace(config, target="pixels")
    with pytest.raises(ValueError, match="none was named: give --tokenizer FILE"):
        pretraining.mae.task.build_task(replace(config, tokenizer=None), data=data, init=None)
