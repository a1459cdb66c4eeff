"""BEiT's pre-training against transformers' BeitForMaskedImageModeling: same weights, images and masks."""

import pytest
import torch
from torch import Tensor, nn
from transformers import BeitConfig, BeitForMaskedImageModeling

from backbones.config import ViTConfig
from backbones.sources.huggingface import rename
from backbones.vit import ViT
from pretraining.beit.model import MaskedImageModel

VOCABULARY = 11


class Given:
    """A tokenizer that says what it was told to."""

    vocabulary, downsampling = VOCABULARY, 8
    sha256: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, token_Bhw: Tensor) -> None:
        self.token_Bhw = token_Bhw

    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        return self.token_Bhw

    def decode(self, token_Bhw: Tensor) -> Tensor:
        raise AssertionError("nothing is drawn here")


@pytest.fixture(params=["shared table", "tables and positions"])
def pair(request: pytest.FixtureRequest) -> tuple[MaskedImageModel, BeitForMaskedImageModeling]:
    """Ours and theirs with the same random weights, mask token and tables included, in float64."""
    shared = request.param == "shared table"
    config = BeitConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        use_mask_token=True,
        use_mean_pooling=True,  # the backbone then ends without a norm, and the head's is BEiT's one
        use_shared_relative_position_bias=shared,
        use_relative_position_bias=not shared,
        use_absolute_position_embeddings=not shared,
        layer_scale_init_value=0.1,
        drop_path_rate=0.0,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = BeitForMaskedImageModeling(config)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    architecture = ViTConfig(
        embed_dim=16,
        depth=3,
        num_heads=2,
        patch_size=8,
        image_size=(32, 32),
        position="none" if shared else "learned",
        qkv_bias="qv",
        layer_scale=0.1,
        relative_position="shared_table" if shared else "table",
    )
    ours = MaskedImageModel(ViT(architecture), Given(torch.zeros(1)))  # type: ignore[arg-type]
    state = theirs.state_dict()
    ours.encoder.load_state_dict(rename(state).state)
    ours.load_state_dict(
        {
            "mask_token": state["beit.embeddings.mask_token"],
            "lm_head.weight": state["lm_head.weight"],
            "lm_head.bias": state["lm_head.bias"],
        },
        strict=False,
    )
    return ours.double().eval(), theirs.double().eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks that hide six patches of sixteen, and a token for every patch."""
    image_BCHW = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    mask_BN = torch.zeros(3, 16, dtype=torch.bool)
    for row in range(3):
        mask_BN[row, torch.randperm(16)[:6]] = True
    return image_BCHW, mask_BN, torch.randint(VOCABULARY, (3, 4, 4))


def test_logits_and_loss_equal_transformers(pair: tuple[MaskedImageModel, BeitForMaskedImageModeling]) -> None:
    ours, theirs = pair
    image_BCHW, mask_BN, token_Bhw = batch()
    ours.tokenizer = Given(token_Bhw)
    labels = token_Bhw.flatten(1)[mask_BN]
    expected = theirs(image_BCHW, bool_masked_pos=mask_BN, labels=labels)
    made = ours.predict(image_BCHW, torch.zeros(1), mask_BN)
    # float64, but theirs rounds the softmax of attention to float32 (6e-8)
    torch.testing.assert_close(made.logit_BMV.flatten(0, 1), expected.logits[mask_BN], rtol=1e-5, atol=1e-7)
    every = ours.lm_head(ours.encode(image_BCHW, mask_BN))
    torch.testing.assert_close(every, expected.logits, rtol=1e-5, atol=1e-7)
    loss = ours((image_BCHW, torch.zeros(1), mask_BN, ["a", "b", "c"]))["cross_entropy"]
    # ours is computed in float32, whatever the logits are
    torch.testing.assert_close(loss.double(), expected.loss, rtol=1e-6, atol=0)
    right = expected.logits[mask_BN].argmax(dim=1) == labels
    assert torch.equal(made.hit_BM.flatten(), right)


def test_gradients_equal_transformers(pair: tuple[MaskedImageModel, BeitForMaskedImageModeling]) -> None:
    ours, theirs = pair
    image_BCHW, mask_BN, token_Bhw = batch()
    ours.tokenizer = Given(token_Bhw)
    theirs(image_BCHW, bool_masked_pos=mask_BN, labels=token_Bhw.flatten(1)[mask_BN]).loss.backward()
    ours((image_BCHW, torch.zeros(1), mask_BN, ["a", "b", "c"]))["cross_entropy"].backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for name, expected in rename(gradients).state.items():
        made = ours.encoder.get_parameter(name).grad
        assert made is not None
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-7)  # the loss is float32
    for name, other in (("mask_token", "beit.embeddings.mask_token"), ("lm_head.weight", "lm_head.weight")):
        torch.testing.assert_close(ours.get_parameter(name).grad, gradients[other], rtol=1e-5, atol=1e-7)
