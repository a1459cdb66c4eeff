"""The ViT against timm's, detectron2's and mmsegmentation's on the same random weights.

The same tokens, the same maps, the same gradients; for ViTDet's windows and pyramid see test_vitdet_parity.py.
"""

import functools
from dataclasses import replace

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
    assert_same_gradients(ours, {name: p.grad for name, p in theirs.named_parameters()})


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


def assert_same_gradients(ours: nn.Module, wanted: dict[str, Tensor | None]) -> None:
    """Every parameter of ours has the gradient that `wanted` has under its name."""
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient is not None and float(gradient.abs().max()) > 0, name
        # float64, relative to the largest of the tensor: sums over some hundreds of products in two orders
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-10 * float(gradient.abs().max()), msg=name)


def test_layer_scale_equals_timm() -> None:
    theirs = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0, init_values=0.1
    ).double()
    randomise(theirs)
    ours = ViT(replace(TINY, layer_scale=0.1)).double()

    def ours_of(name: str) -> str:
        return name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")

    ours.load_state_dict({ours_of(name): tensor for name, tensor in theirs.state_dict().items()})
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, tokens = theirs.forward_features(image), ours(image)
    assert_same(tokens, expected)
    weights = torch.randn_like(tokens)
    (expected * weights).sum().backward()
    (tokens * weights).sum().backward()
    assert_same_gradients(ours, {ours_of(name): p.grad for name, p in theirs.named_parameters()})


def test_distilled_equals_timm() -> None:
    from timm.models.deit import VisionTransformerDistilled

    theirs = VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0
    ).double()
    randomise(theirs)
    ours = ViT(replace(TINY, distilled=True)).double()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_same(ours(image), theirs.forward_features(image))


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("shared", [False, True])
def test_beit_equals_timm(shared: bool, size: tuple[int, int]) -> None:
    from timm.models.beit import Beit

    theirs = Beit(
        img_size=size,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=4,
        num_classes=0,
        global_pool="token",
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
    ).double()
    randomise(theirs)
    architecture = replace(
        TINY,
        image_size=size,
        position="none",
        qkv_bias="qv",
        layer_scale=0.1,
        relative_position="shared_table" if shared else "table",
    )
    ours = ViT(architecture).double()
    ours.load_state_dict(theirs.state_dict())  # the names are BEiT's on both sides
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected, tokens = theirs.forward_features(image), ours(image)
    assert_same(tokens, expected)
    weights = torch.randn_like(tokens)
    (expected * weights).sum().backward()
    (tokens * weights).sum().backward()
    assert_same_gradients(ours, {name: p.grad for name, p in theirs.named_parameters()})


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
@pytest.mark.parametrize("kind", ["MAE", "BEiT"])
def test_maps_equal_mmsegmentation(kind: str, size: tuple[int, int]) -> None:
    from segmentation.host import MODELS

    theirs = MODELS.build(
        {
            "type": kind,
            "img_size": size,
            "patch_size": 8,
            "embed_dims": 32,
            "num_layers": 4,
            "num_heads": 4,
            "out_indices": (1, 3),
            "init_values": 1.0,
            "norm_cfg": {"type": "LN", "eps": 1e-6},
        }
    ).double()
    randomise(theirs)
    architecture = replace(
        TINY,
        depth=4,
        image_size=size,
        position="learned" if kind == "MAE" else "none",
        qkv_bias="qv" if kind == "BEiT" else "fused",
        layer_scale=1.0,
        relative_position="table",
    )
    ours = ViT(architecture, final_norm=False).double()
    renamed = {in_our_name(name): tensor for name, tensor in theirs.state_dict().items() if "_index" not in name}
    ours.load_state_dict(renamed)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected, maps = theirs(image), ours.feature_maps(image, [1, 3])
    weights = [torch.randn_like(m) for m in maps]
    for made, reference in zip(maps, expected, strict=True):
        assert_same(made, reference)
    sum((m * weight).sum() for m, weight in zip(expected, weights, strict=True)).backward()
    sum((m * weight).sum() for m, weight in zip(maps, weights, strict=True)).backward()
    assert_same_gradients(ours, {in_our_name(name): p.grad for name, p in theirs.named_parameters()})


def in_our_name(name: str) -> str:
    """The name here of a parameter of mmsegmentation's MAE or BEiT."""
    renamed = (
        ("patch_embed.projection", "patch_embed.proj"),
        ("layers.", "blocks."),
        (".ln", ".norm"),
        ("ffn.blocks.0.0.", "mlp.fc1."),
        ("ffn.blocks.1.", "mlp.fc2."),
    )
    for old, new in renamed:
        name = name.replace(old, new)
    return name
