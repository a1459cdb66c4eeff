"""ViTDet against detectron2's `ViT` and `SimpleFeaturePyramid` on the same random weights: maps and every gradient.

detectron2 keeps the class token's row of the position table and gives it no use; here it is taken off.
"""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.pyramid import SimpleFeaturePyramid
from backbones.vit import ViT

DEPTH, WIDTH, HEADS, PATCH, CHANNELS = 3, 32, 4, 16, 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """One ViTDet and the image that it sees; sizes in pixels."""

    relative: bool = True
    window: int = 0
    windowed: tuple[int, ...] = ()
    size: int = 128
    pretrain: int = 128
    image: tuple[int, int] = (128, 128)


CASES = {
    "native": Case(window=4, windowed=(0, 2)),
    "windows are padded": Case(window=3, windowed=(0, 2)),
    "one window larger than the image": Case(window=14, windowed=(0, 1)),
    "every block windowed": Case(window=4, windowed=(0, 1, 2)),
    "relative positions without windows": Case(),
    "windows without relative positions": Case(relative=False, window=3, windowed=(1,)),
    "pre-trained at another size": Case(window=3, windowed=(0, 2), pretrain=64),
    "wide image, tables resized": Case(window=3, windowed=(0, 2), image=(96, 224)),
    "tall image, tables resized": Case(window=4, windowed=(0, 2), pretrain=64, image=(256, 96)),
    "smaller image": Case(window=3, windowed=(1,), image=(64, 32)),
}


def detectron2_model(case: Case) -> nn.Module:
    from detectron2.modeling import SimpleFeaturePyramid as Detectron2Pyramid
    from detectron2.modeling import ViT as Detectron2ViT
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    net = Detectron2ViT(
        img_size=case.size,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=case.relative,
        window_size=case.window,
        window_block_indexes=case.windowed,
        pretrain_img_size=case.pretrain,
    )
    return Detectron2Pyramid(
        net, "last_feat", CHANNELS, scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN"
    )


class Ours(nn.Module):
    """The same of this project's parts, under detectron2's names."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        architecture = ViTConfig(
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            patch_size=PATCH,
            image_size=(case.pretrain, case.pretrain),
            relative_position="decomposed" if case.relative else "none",
            relative_size=(case.size, case.size),
            window_size=case.window,
            global_blocks=tuple(set(range(DEPTH)) - set(case.windowed)),
        )
        self.net = ViT(architecture, class_token=False, final_norm=False)
        self.pyramid = SimpleFeaturePyramid(WIDTH, out_channels=CHANNELS)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the five maps."""
        (map_BDhw,) = self.net.feature_maps(image_BCHW, [DEPTH - 1])
        return self.pyramid(map_BDhw)


def in_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {n if n.startswith("net.") else f"pyramid.{n.removeprefix('pyramid.')}": t for n, t in tensors.items()}
    return {**renamed, "net.pos_embed": renamed["net.pos_embed"][:, 1:]}


@pytest.mark.parametrize("name", CASES)
def test_maps_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    theirs = detectron2_model(case).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = Ours(case).double()
    ours.load_state_dict(in_our_names(theirs.state_dict()))
    image = torch.randn(2, 3, *case.image, dtype=torch.float64)

    expected, made = theirs(image), ours(image)
    assert list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    weights = [torch.randn_like(level) for level in made]
    sum((level * weight).sum() for level, weight in zip(expected.values(), weights, strict=True)).backward()
    sum((level * weight).sum() for level, weight in zip(made, weights, strict=True)).backward()

    # float64 where nothing is resized: what is left of two orders of summing. Tables are resized in float32 here (6e-8
    # relative, so that bfloat16 weights resize well) and in the type of the weights there.
    resized = case.image != (case.pretrain, case.pretrain) or (case.relative and case.image != (case.size, case.size))
    tolerance = 1e-5 if resized else 1e-9
    for level, reference in zip(made, expected.values(), strict=True):
        torch.testing.assert_close(level, reference, rtol=tolerance, atol=tolerance)
    found = {n: p.grad for n, p in ours.named_parameters()}
    wanted = in_our_names({n: p.grad for n, p in theirs.named_parameters()})
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        atol = tolerance * float(gradient.abs().max())  # relative to the largest of the tensor
        torch.testing.assert_close(found[parameter], gradient, rtol=tolerance, atol=atol, msg=parameter)
        assert float(gradient.abs().max()) > 0, parameter


@pytest.mark.parametrize("name", ["native", "wide image, tables resized"])
def test_float32_as_trained(name: str) -> None:
    case = CASES[name]
    theirs = detectron2_model(case)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = Ours(case)
    ours.load_state_dict(in_our_names(theirs.state_dict()))
    image = torch.randn(1, 3, *case.image)
    with torch.no_grad():
        for level, reference in zip(ours(image), theirs(image).values(), strict=True):
            # float32 through three blocks and three layer norms, values of about 1
            torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-4)


def test_names_and_lengths_of_vitdet_base_at_1024() -> None:
    from detectron2.modeling import ViT as Detectron2ViT

    whole = (2, 5, 8, 11)
    windowed = [i for i in range(12) if i not in whole]
    # an eighth as wide, which changes no name and no length of a table
    theirs = Detectron2ViT(embed_dim=96, window_size=14, use_rel_pos=True, window_block_indexes=windowed)
    architecture = ViTConfig(
        embed_dim=96,
        depth=12,
        num_heads=12,
        relative_position="decomposed",
        relative_size=(1024, 1024),
        window_size=14,
        global_blocks=whole,
    )
    wanted = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    wanted["pos_embed"] = (1, 196, 96)  # theirs has the class token's row
    ours = ViT(architecture, class_token=False, final_norm=False)
    assert {name: tuple(p.shape) for name, p in ours.named_parameters()} == wanted
    assert wanted["blocks.0.attn.rel_pos_h"] == (27, 8) and wanted["blocks.2.attn.rel_pos_h"] == (127, 8)
