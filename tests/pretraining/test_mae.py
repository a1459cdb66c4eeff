"""The masked autoencoder: patches, target and loss by hand, and who gets a gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backbones.config import ViTConfig
from backbones.position import sincos_table
from backbones.vit import ViT
from pretraining.mae import MaskedAutoencoder, patchify, unpatchify
from pretraining.pictures import pasted

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def autoencoder(architecture: ViTConfig = TINY, *, normalise_target: bool = True) -> MaskedAutoencoder:
    return MaskedAutoencoder(
        ViT(architecture, train_position=False),
        mask_ratio=0.75,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=3,
        normalise_target=normalise_target,
    )


def test_patchify_by_hand() -> None:
    # two channels of 4 x 4: 0-15 row-major, and the same plus 100
    plane = torch.arange(16.0).reshape(4, 4)
    patches = patchify(torch.stack([plane, plane + 100])[None], 2)
    assert patches.tolist() == [
        [
            [0, 100, 1, 101, 4, 104, 5, 105],
            [2, 102, 3, 103, 6, 106, 7, 107],
            [8, 108, 9, 109, 12, 112, 13, 113],
            [10, 110, 11, 111, 14, 114, 15, 115],
        ]
    ]


@settings(deadline=None, max_examples=50)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    patch=st.integers(1, 5),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
)
def test_unpatchify_inverts(batch: int, channels: int, patch: int, rows: int, columns: int) -> None:
    image = torch.randn(batch, channels, rows * patch, columns * patch)
    patches = patchify(image, patch)
    assert patches.shape == (batch, rows * columns, patch * patch * channels)
    assert torch.equal(unpatchify(patches, patch=patch, grid=(rows, columns)), image)


def test_normalised_target_by_hand() -> None:
    one = ViTConfig(embed_dim=4, depth=1, num_heads=1, patch_size=2, image_size=(2, 4), in_chans=1)
    model = MaskedAutoencoder(
        ViT(one), mask_ratio=0.5, decoder_dim=4, decoder_depth=1, decoder_heads=1, normalise_target=True
    )
    image = torch.tensor([[[[1.0, 2.0, 7.0, 7.0], [3.0, 6.0, 7.0, 7.0]]]])
    target, mean, deviation = model.target(image)
    # 1, 2, 3, 6: mean 3, unbiased variance (4 + 1 + 0 + 9) / 3
    spread = (14 / 3 + 1e-6) ** 0.5
    assert mean.flatten().tolist() == [3.0, 7.0]
    assert deviation.flatten().tolist() == pytest.approx([spread, 1e-3])
    assert target[0, 0].tolist() == pytest.approx([-2 / spread, -1 / spread, 0, 3 / spread])
    assert target[0, 1].tolist() == [0.0] * 4  # a flat patch is all zero, not NaN


def test_pixel_target_is_the_image() -> None:
    image = torch.randn(2, 3, 32, 32)
    target, mean, deviation = autoencoder(normalise_target=False).target(image)
    assert torch.equal(target, patchify(image, 8))
    assert (mean.unique().tolist(), deviation.unique().tolist()) == ([0.0], [1.0])


def test_loss_by_hand() -> None:
    model = autoencoder(normalise_target=False)
    torch.nn.init.zeros_(model.decoder_pred.weight)
    torch.nn.init.constant_(model.decoder_pred.bias, 1.0)  # every predicted pixel is 1
    noise = torch.arange(16.0).flip(0)[None]  # the last four patches stay visible
    image = torch.zeros(1, 3, 32, 32)
    image[..., :24, :] = 3.0  # hidden: an error of 2
    image[..., 24:, :] = 50.0  # visible: not counted
    made = model.reconstruct(image, noise)
    assert made.mask_BN.tolist() == [[True] * 12 + [False] * 4]
    assert made.loss_B.tolist() == [4.0]
    assert model((image, noise, ["a"]))["reconstruction"].item() == 4.0


def test_only_hidden_patches_are_learned_from() -> None:
    model = autoencoder()
    predictions: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        predictions.append(output)

    model.decoder_pred.register_forward_hook(keep)
    image, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    made = model.reconstruct(image, noise)
    made.loss_B.sum().backward()
    gradient = predictions[0].grad
    assert gradient is not None
    touched = gradient[:, 1:].abs().sum(dim=2) > 0
    assert torch.equal(touched, made.mask_BN)
    assert not gradient[:, 0].any()  # the class token's prediction is dropped
    # by hand over the hidden patches alone, each image by itself
    target = model.target(image)[0]
    for row in range(2):
        hidden = made.mask_BN[row]
        by_hand = (made.prediction_BNP[row][hidden] - target[row][hidden]).square().mean()
        torch.testing.assert_close(made.loss_B[row], by_hand)  # float32, another order of summing


def test_prediction_never_sees_hidden_pixels() -> None:
    model = autoencoder()
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    made = model.reconstruct(image, noise)
    hidden = unpatchify(made.mask_BN[:, :, None].expand(-1, -1, 192), patch=8, grid=(4, 4))
    other = torch.where(hidden, torch.randn_like(image), image)
    again = model.reconstruct(other, noise)
    assert torch.equal(again.prediction_BNP, made.prediction_BNP)
    assert not torch.equal(again.loss_B, made.loss_B)


def test_gradients() -> None:
    model = autoencoder()
    model((torch.randn(2, 3, 32, 32), torch.rand(2, 16), ["a", "b"]))["reconstruction"].backward()
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"encoder.pos_embed", "decoder_pos_embed"}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in fixed), name


def test_bfloat16_autocast() -> None:
    model = autoencoder()
    batch = (torch.randn(2, 3, 32, 32), torch.rand(2, 16), ["a", "b"])
    exact = model(batch)["reconstruction"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = model(batch)["reconstruction"]
    assert made.dtype == torch.float32  # the loss itself is reduced in float32
    # bfloat16 keeps 8 bits, 0.4 % a number; over 384 predicted pixels a patch that averages out
    torch.testing.assert_close(made, exact, rtol=1e-2, atol=0)


def test_wide_image() -> None:
    model = autoencoder(TINY.at(16, 48))
    made = model.reconstruct(torch.randn(2, 3, 16, 48), torch.rand(2, 12))
    assert made.prediction_BNP.shape == (2, 12, 192)
    assert made.mask_BN.sum(dim=1).tolist() == [9, 9]
    assert torch.equal(model.decoder_pos_embed, sincos_table(12, (2, 6), prefix=1))


@pytest.mark.parametrize("normalise_target", [True, False])
def test_visible_patches_are_pasted(normalise_target: bool) -> None:
    model = autoencoder(TINY.at(32, 48), normalise_target=normalise_target).eval()
    image, noise = torch.randn(2, 3, 32, 48), torch.rand(2, 24)
    masked, predicted = pasted(model, image, noise)
    hidden = unpatchify(model.reconstruct(image, noise).mask_BN[:, :, None].expand(-1, -1, 192), patch=8, grid=(4, 6))
    assert torch.equal(masked.isnan(), hidden)
    # float32: the target is normalised and put back
    torch.testing.assert_close(masked[~hidden], image[~hidden], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predicted[~hidden], image[~hidden], rtol=1e-5, atol=1e-5)
    assert predicted.isfinite().all()
    assert not torch.isclose(predicted[hidden], image[hidden]).all()


def test_perfect_prediction_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = autoencoder()
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    monkeypatch.setattr(model, "_decode", lambda *_: model.target(image)[0])
    assert model.reconstruct(image, noise).loss_B.tolist() == [0.0]
    _, predicted = pasted(model, image, noise)
    torch.testing.assert_close(predicted, image, rtol=1e-5, atol=1e-5)  # float32, as above
