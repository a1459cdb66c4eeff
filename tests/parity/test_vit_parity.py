"""The ViT against timm's and detectron2's on the same random weights: same tokens, same maps, same gradients."""

import functools

import pytest
import timm.models.vision_transformer
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT

TINY = ViTConfig(embed_dim=32, depth=3, num_heads=4, patch_size=8, image_size=(32, 32))


def assert_same(made: Tensor | None, expected: Tensor | None) -> None:
    """Equal in float64 but for what is left of two orders of summing a few hundred numbers of about 1."""
    assert made is not None and expected is not None
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-10)


def randomise(model: nn.Module) -> None:
    """Give every parameter a random value, norms and biases too, so that none hides behind its initial value."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)


def timm_vit() -> VisionTransformer:
    """timm's ViT of the tiny architecture without a head, random, in float64."""
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0, dynamic_img_size=True
    )
    randomise(model)
    return model.double().eval()


def test_tokens_and_gradients_equal_timm() -> None:
    theirs = timm_vit()
    ours = ViT(TINY).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)  # the names are timm's
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, tokens = theirs.forward_features(image), ours(image)
    assert_same(tokens, expected)
    weights = torch.randn_like(tokens)
    (expected * weights).sum().backward()
    (tokens * weights).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_same(parameter.grad, gradients[name])


def test_resized_image_equals_timm_without_antialias(monkeypatch: pytest.MonkeyPatch) -> None:
    # timm's own resampling, with the antialiasing off that MAE's convention does not have
    original = timm.models.vision_transformer.resample_abs_pos_embed
    plain = functools.partial(original, antialias=False)
    monkeypatch.setattr(timm.models.vision_transformer, "resample_abs_pos_embed", plain)
    theirs = timm_vit().float()
    ours = ViT(TINY).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 56, 40)
    with torch.no_grad():
        # float32 through three blocks with values up to about 10: rounding alone gives some 1e-5
        torch.testing.assert_close(ours(image), theirs.forward_features(image), rtol=1e-4, atol=1e-4)


def test_intermediate_maps_equal_timm() -> None:
    theirs = timm_vit()
    ours = ViT(TINY).double().eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    expected = theirs.forward_intermediates(image, indices=[0, 2], norm=False, intermediates_only=True)
    for made, reference in zip(ours.feature_maps(image, [0, 2]), expected, strict=True):
        assert_same(made, reference)


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_map_equals_detectron2(size: tuple[int, int]) -> None:
    from detectron2.modeling import ViT as Detectron2ViT

    theirs = Detectron2ViT(
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=4,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        pretrain_img_size=32,
    )
    randomise(theirs)
    ours = ViT(TINY, final_norm=False)
    # detectron2 drops the class token but keeps its row of the table
    without = ViT(TINY, class_token=False, final_norm=False)
    state = theirs.state_dict()
    without.load_state_dict({**state, "pos_embed": state["pos_embed"][:, 1:]})
    assert set(ours.state_dict()) - set(state) == {"cls_token"}
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        (made,) = without.feature_maps(image, [2])
        # float32, since the table is resampled in it; three blocks, values up to about 10
        torch.testing.assert_close(made, theirs(image)["last_feat"], rtol=1e-4, atol=1e-4)
