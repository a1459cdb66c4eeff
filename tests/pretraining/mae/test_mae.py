"""The masked autoencoder: patches, target and loss by hand, and who gets a gradient."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.config import Position, ViTConfig
from backbones.position import sincos_table
from backbones.vit import ViT
from pretraining.mae.config import StatisticsOf
from pretraining.mae.model import DEFAULT, MaskedAutoencoder, Variant, patchify, unpatchify
from pretraining.mae.pictures import caption, pasted
from pretraining.mae.target import patch_statistics

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def autoencoder(
    architecture: ViTConfig = TINY, *, normalise_target: bool = True, variant: Variant = DEFAULT
) -> MaskedAutoencoder:
    return MaskedAutoencoder(
        ViT(architecture, train_position=False),
        mask_ratio=0.75,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=3,
        normalise_target=normalise_target,
        variant=variant,
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
    patches = model.patches(image)
    target, statistics = model.target(patches), patch_statistics(patches)
    # 1, 2, 3, 6: mean 3, unbiased variance (4 + 1 + 0 + 9) / 3
    spread = (14 / 3 + 1e-6) ** 0.5
    assert statistics.mean.flatten().tolist() == [3.0, 7.0]
    assert statistics.std.flatten().tolist() == pytest.approx([spread, 1e-3])
    assert target[0, 0].tolist() == pytest.approx([-2 / spread, -1 / spread, 0, 3 / spread])
    assert target[0, 1].tolist() == [0.0] * 4  # a flat patch is all zero, not NaN


def test_pixel_target_is_the_image() -> None:
    image = torch.randn(2, 3, 32, 32)
    model = autoencoder(normalise_target=False)
    assert torch.equal(model.target(model.patches(image)), patchify(image, 8))


def test_loss_by_hand() -> None:
    model = autoencoder(normalise_target=False)
    torch.nn.init.zeros_(model.decoder_pred.weight)
    torch.nn.init.constant_(model.decoder_pred.bias, 1.0)  # every predicted pixel is 1
    noise = torch.arange(16.0).flip(0)[None]  # the last four patches stay visible
    image = torch.zeros(1, 3, 32, 32)
    image[..., :24, :] = 3.0  # masked: an error of 2
    image[..., 24:, :] = 50.0  # visible: not counted
    made = model.reconstruct(image, noise)
    assert made.mask_BN.tolist() == [[True] * 12 + [False] * 4]
    assert made.loss_B.tolist() == [4.0]
    assert model((image, noise, ["a"]))["reconstruction"].item() == 4.0


def test_only_masked_patches_are_learned_from() -> None:
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
    # by hand over the masked patches alone, each image by itself
    target = model.target(model.patches(image))
    for row in range(2):
        masked = made.mask_BN[row]
        by_hand = (made.prediction_BNP[row][masked] - target[row][masked]).square().mean()
        torch.testing.assert_close(made.loss_B[row], by_hand)  # float32, another order of summing


def test_prediction_never_sees_masked_pixels() -> None:
    model = autoencoder()
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    made = model.reconstruct(image, noise)
    masked = unpatchify(made.mask_BN[:, :, None].expand(-1, -1, 192), patch=8, grid=(4, 4))
    other = torch.where(masked, torch.randn_like(image), image)
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
    assert torch.equal(model.decoder_pos_embed, sincos_table(12, (2, 6), num_prefix_tokens=1))


@pytest.mark.parametrize("source", ["true", "visible"])
@pytest.mark.parametrize("normalise_target", [True, False])
def test_visible_patches_are_pasted(normalise_target: bool, source: StatisticsOf) -> None:
    model = autoencoder(TINY.at(32, 48), normalise_target=normalise_target).eval()
    image, noise = torch.randn(2, 3, 32, 48), torch.rand(2, 24)
    made = pasted(model, image, noise, source=source)
    masked = unpatchify(model.reconstruct(image, noise).mask_BN[:, :, None].expand(-1, -1, 192), patch=8, grid=(4, 6))
    assert torch.equal(made.masked.isnan(), masked)
    assert torch.equal(made.masked[~masked], image[~masked])
    assert torch.equal(made.pasted[~masked], image[~masked])
    assert torch.equal(made.pasted[masked], made.predicted[masked])
    assert made.predicted.isfinite().all()
    assert not torch.isclose(made.pasted[masked], image[masked]).all()


def test_perfect_prediction_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = autoencoder()
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    monkeypatch.setattr(model, "_decode", lambda *_: model.target(model.patches(image)))
    assert model.reconstruct(image, noise).loss_B.tolist() == [0.0]
    made = pasted(model, image, noise)
    # float32: the target is normalised and put back
    torch.testing.assert_close(made.predicted, image, rtol=1e-5, atol=1e-5)


def test_captions_say_whose_statistics() -> None:
    masked = "the loss is of masked patches, so what is predicted of visible ones means nothing"
    assert caption(autoencoder()).splitlines() == [
        "target normalised per patch; put back: mean and std of the true patches, which it never saw",
        masked,
    ]
    assert "average mean and std of the image's visible patches" in caption(autoencoder(), "visible")
    assert caption(autoencoder(normalise_target=False)) == masked
    assert caption(autoencoder(normalise_target=False, variant=Variant(loss_on="all"))) == ""


def test_loss_on_all_patches_by_hand() -> None:
    model = autoencoder(normalise_target=False, variant=Variant(loss_on="all"))
    torch.nn.init.zeros_(model.decoder_pred.weight)
    torch.nn.init.constant_(model.decoder_pred.bias, 1.0)
    image = torch.zeros(1, 3, 32, 32)
    image[..., :24, :] = 3.0  # 12 patches with a squared error of 4
    image[..., 24:, :] = 6.0  # 4 with one of 25, visible or not
    assert model.reconstruct(image, torch.rand(1, 16)).loss_B.tolist() == [(12 * 4 + 4 * 25) / 16]


def test_mask_tokens_in_the_encoder() -> None:
    model = autoencoder(variant=Variant(mask_token="encoder"))
    assert model.mask_token.shape == (1, 1, 16)  # of the encoder's width
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    made = model.reconstruct(image, noise)
    mask = made.mask_BN
    # by hand: an image whose masked patches project to the mask token
    encoder = model.encoder
    tokens = encoder.patch_embed(image).flatten(1, 2)
    tokens[mask] = model.mask_token[0]
    table = encoder.pos_embed
    assert table is not None and encoder.cls_token is not None
    x = torch.cat([encoder.cls_token + table[:, :1], tokens + table[:, 1:]], dim=1)
    for block in encoder.blocks:
        x = block(x)
    x = model.decoder_embed(encoder.norm(x)) + model.decoder_pos_embed
    x = model.decoder_pred(model.decoder_norm(model.decoder_blocks[0](x)))
    torch.testing.assert_close(made.prediction_BNP, x[:, 1:], rtol=1e-5, atol=1e-6)  # float32
    masked = unpatchify(mask[:, :, None].expand(-1, -1, 192), patch=8, grid=(4, 4))
    again = model.reconstruct(torch.where(masked, torch.randn_like(image), image), noise)
    assert torch.equal(again.prediction_BNP, made.prediction_BNP)  # masked pixels are not seen


def test_without_decoder_positions_masked_patches_are_one() -> None:
    model = autoencoder(variant=Variant(decoder_position="none"))
    made = model.reconstruct(torch.randn(1, 3, 32, 32), torch.rand(1, 16))
    masked = made.prediction_BNP[made.mask_BN]
    torch.testing.assert_close(masked, masked[:1].expand_as(masked), rtol=1e-5, atol=1e-6)
    learned = autoencoder(variant=Variant(decoder_position="learned"))
    assert isinstance(learned.decoder_pos_embed, nn.Parameter) and learned.decoder_pos_embed.requires_grad
    different = learned.reconstruct(torch.randn(1, 3, 32, 32), torch.rand(1, 16))
    assert different.prediction_BNP[different.mask_BN].std(dim=0).min() > 0


@pytest.mark.parametrize("position", ["none", "learned"])
def test_positions_of_the_encoder(position: Position) -> None:
    model = autoencoder(replace(TINY, position=position))
    image, order = torch.randn(1, 3, 32, 32), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[2, 7, 11]])
    tokens = model.encoder.encode_visible(image, keep)
    shuffled = unpatchify(patchify(image, 8)[:, order], patch=8, grid=(4, 4))
    moved = torch.stack([(order == number).nonzero().flatten()[0] for number in keep[0]])[None]
    same = torch.allclose(model.encoder.encode_visible(shuffled, moved), tokens, atol=1e-6)
    assert same == (position == "none")  # without positions it does not matter where a patch stands
