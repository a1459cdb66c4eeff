"""The masked autoencoder against transformers' ViTMAEForPreTraining: same weights and noise, same everything."""

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from backbones.config import ViTConfig
from backbones.param_groups import exempt_vectors, param_groups
from backbones.position import sincos_table
from backbones.vit import ViT
from pretraining.mae.model import MaskedAutoencoder

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))
IN_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def block(theirs: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """One block under our names, its three projections stacked into one."""
    renamed = {}
    for kind in ("weight", "bias"):
        parts = [theirs[f"{source}.attention.{part}_proj.{kind}"] for part in "qkv"]
        renamed[f"{target}.attn.qkv.{kind}"] = torch.cat(parts)
        for old, new in IN_BLOCK.items():
            renamed[f"{target}.{new}.{kind}"] = theirs[f"{source}.{old}.{kind}"]
    return renamed


def our_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """All of the weights under our names."""
    state = {
        "encoder.cls_token": theirs["vit.embeddings.cls_token"],
        "encoder.pos_embed": theirs["vit.embeddings.position_embeddings"],
        "mask_token": theirs["decoder.mask_token"],
        "decoder_pos_embed": theirs["decoder.decoder_pos_embed"],
    }
    for kind in ("weight", "bias"):
        state[f"encoder.patch_embed.proj.{kind}"] = theirs[f"vit.embeddings.patch_embeddings.projection.{kind}"]
        state[f"encoder.norm.{kind}"] = theirs[f"vit.layernorm.{kind}"]
        for part in ("decoder_embed", "decoder_norm", "decoder_pred"):
            state[f"{part}.{kind}"] = theirs[f"decoder.{part}.{kind}"]
    for i in range(2):
        state |= block(theirs, f"vit.layers.{i}", f"encoder.blocks.{i}")
    return state | block(theirs, "decoder.decoder_layers.0", "decoder_blocks.0")


@pytest.fixture(params=[(True, 0.75), (False, 0.75), (True, 0.4), (False, 0.9)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[MaskedAutoencoder, ViTMAEForPreTraining]:
    """Ours and theirs with the same random weights, norms, biases and tables included, in float64."""
    normalise, ratio = request.param
    config = ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=48,
        mask_ratio=ratio,
        norm_pix_loss=normalise,
        layer_norm_eps=1e-6,
    )
    theirs = ViTMAEForPreTraining(config).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = MaskedAutoencoder(
        ViT(TINY, train_position=False),
        mask_ratio=ratio,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=3,
        normalise_target=normalise,
    ).double()
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    return ours, theirs


def test_same_mask_prediction_and_loss(
    pair: tuple[MaskedAutoencoder, ViTMAEForPreTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    # ours reduces its loss in float32 whatever the weights are; kept in float64 here to compare closely
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    image = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    noise = torch.rand(3, 16, dtype=torch.float64)
    expected = theirs(pixel_values=image, noise=noise)
    made = ours.reconstruct(image, noise)
    assert torch.equal(made.mask_BN, expected.mask.bool())
    # float64: what is left of two orders of summing
    torch.testing.assert_close(made.prediction_BNP, expected.logits, rtol=1e-9, atol=1e-10)
    losses = ours((image, noise, ["a", "b", "c"]))
    assert list(losses) == ["reconstruction"]
    torch.testing.assert_close(losses["reconstruction"], expected.loss, rtol=1e-9, atol=0)


def test_same_gradients(pair: tuple[MaskedAutoencoder, ViTMAEForPreTraining], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)  # as above
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    noise = torch.rand(2, 16, dtype=torch.float64)
    theirs(pixel_values=image, noise=noise).loss.backward()
    ours((image, noise, ["a", "b"]))["reconstruction"].backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    pairs = {
        "mask_token": "decoder.mask_token",
        "encoder.cls_token": "vit.embeddings.cls_token",
        "encoder.patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
        "encoder.blocks.0.mlp.fc1.weight": "vit.layers.0.mlp.fc1.weight",
        "decoder_blocks.0.attn.proj.bias": "decoder.decoder_layers.0.attention.o_proj.bias",
    }
    for name, other in pairs.items():
        torch.testing.assert_close(ours.get_parameter(name).grad, gradients[other], rtol=1e-8, atol=1e-10)


def test_same_training(pair: tuple[MaskedAutoencoder, ViTMAEForPreTraining], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five AdamW steps with MAE's rule of weight decay give the same losses and weights."""
    ours, theirs = pair
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)  # as above
    task_groups = param_groups(ours, weight_decay=0.05, depth=2, prefix="encoder.", exempt=exempt_vectors)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    their_groups = [
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
    ]
    our_groups = [{"params": list(g.params), "weight_decay": g.weight_decay} for g in task_groups]
    optimizers = [torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95)) for groups in (our_groups, their_groups)]
    for _ in range(5):
        image = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        noise = torch.rand(4, 16, dtype=torch.float64)
        losses = [ours((image, noise, [""] * 4))["reconstruction"], theirs(pixel_values=image, noise=noise).loss]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-8, atol=0)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    expected = our_names(theirs.state_dict())
    for name, value in ours.state_dict().items():
        # the key bias, of which softmax sees nothing, has a gradient of rounding alone, and Adam makes steps of it
        if name.endswith("attn.qkv.bias"):
            width = len(value) // 3
            keys = torch.zeros(len(value), dtype=torch.bool)
            keys[width : 2 * width] = True
            value, wanted = value[~keys], expected[name][~keys]
        else:
            wanted = expected[name]
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-8)


def test_same_tables() -> None:
    theirs = build_2d_sinusoidal_position_embedding(height=4, width=6, embed_dim=16, cls_token=True)
    # their function puts the row first; their model swaps the halves, as the published weights have them
    theirs = torch.cat([theirs[:, 8:], theirs[:, :8]], dim=1)
    # both are computed in float64 and rounded once to float32
    torch.testing.assert_close(sincos_table(16, (4, 6), num_prefix_tokens=1)[0], theirs, rtol=0, atol=1e-7)
