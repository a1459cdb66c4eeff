"""Rates and weight decay of every parameter against detectron2's and mmsegmentation's own code, and where they differ.

The layers are numbered alike everywhere. Weight decay is not: this project exempts by default what MAE's fine-tuning
does; detectron2's two rules are functions beside it; mmsegmentation's decays two parameters that it means to exempt.
"""

from functools import partial

import pytest
from torch import nn

from backbones.config import ViTConfig
from backbones.param_groups import Exempt, exempt_block_norms_and_position, exempt_nothing, param_groups
from backbones.pyramid import SimpleFeaturePyramid
from backbones.vit import ViT

DEPTH, DECAY, WEIGHT_DECAY = 4, 0.7, 0.1
Rule = dict[str, tuple[float, float]]  # name of a parameter: its learning-rate scale and weight decay


def ours_of(model: nn.Module, prefix: str, **options: Exempt) -> Rule:
    groups = param_groups(model, weight_decay=WEIGHT_DECAY, layer_decay=DECAY, depth=DEPTH, prefix=prefix, **options)
    return {name: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}


class Detector(nn.Module):
    """A backbone beside a box head with detectron2's norm."""

    def __init__(self, backbone: nn.Module) -> None:
        from detectron2.layers import ShapeSpec
        from detectron2.modeling.roi_heads import FastRCNNConvFCHead

        super().__init__()
        self.backbone = backbone
        shape = ShapeSpec(channels=8, height=4, width=4)
        self.roi_heads = FastRCNNConvFCHead(shape, conv_dims=[8], fc_dims=[8], conv_norm="LN")


class OurBackbone(nn.Module):
    """This project's ViTDet backbone, in the places of detection/model/backbone.py."""

    def __init__(self) -> None:
        super().__init__()
        architecture = ViTConfig(
            embed_dim=16,
            depth=DEPTH,
            num_heads=2,
            image_size=(64, 64),
            relative_position="decomposed",
            window_size=2,
            global_blocks=(1, 3),
        )
        self.vit = ViT(architecture, class_token=False, final_norm=False)
        self.pyramid = SimpleFeaturePyramid(16, out_channels=8)


def detectron2_rule(*, norms: float | None, overrides: dict[str, dict[str, float]]) -> Rule:
    """What detectron2's LazyConfig optimiser of ViTDet does, `norms` being its weight_decay_norm."""
    from detectron2.modeling import SimpleFeaturePyramid as Detectron2Pyramid
    from detectron2.modeling import ViT as Detectron2ViT
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
    from detectron2.solver import get_default_optimizer_params

    net = Detectron2ViT(
        img_size=64,
        embed_dim=16,
        depth=DEPTH,
        num_heads=2,
        use_rel_pos=True,
        window_size=2,
        window_block_indexes=(0, 2),
        pretrain_img_size=64,
    )
    model = Detector(Detectron2Pyramid(net, "last_feat", 8, scale_factors=(4.0, 2.0, 1.0, 0.5), norm="LN"))
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=WEIGHT_DECAY,
        weight_decay_norm=norms,
        lr_factor_func=partial(get_vit_lr_decay_rate, num_layers=DEPTH, lr_decay_rate=DECAY),
        overrides=overrides,
    )
    of_parameter = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    rule = {}
    for name, parameter in model.named_parameters():
        ours = name.replace("backbone.net.", "backbone.vit.").replace("backbone.simfp", "backbone.pyramid.simfp")
        rule[ours] = of_parameter[parameter]
    return rule


@pytest.mark.parametrize(
    ("exempt", "norms", "overrides"),
    [
        # projects/ViTDet/configs: B and L, then H
        (exempt_block_norms_and_position, 0.0, {"pos_embed": {"weight_decay": 0.0}}),
        (exempt_nothing, None, {}),
    ],
    ids=["base-and-large", "huge"],
)
def test_equals_detectron2(exempt: Exempt, norms: float | None, overrides: dict[str, dict[str, float]]) -> None:
    expected = detectron2_rule(norms=norms, overrides=overrides)
    made = ours_of(Detector(OurBackbone()), "backbone.vit.", exempt=exempt)
    assert made.keys() == expected.keys()
    for name in expected:
        assert made[name] == pytest.approx(expected[name], rel=1e-12), name


def test_what_detectron2_decays() -> None:
    rule = detectron2_rule(norms=0.0, overrides={"pos_embed": {"weight_decay": 0.0}})
    free = {name for name, (_, decay) in rule.items() if decay == 0}
    blocks = {f"backbone.vit.blocks.{i}.norm{n}.{p}" for i in range(DEPTH) for n in (1, 2) for p in ("weight", "bias")}
    # biases, relative positions, and the norms of pyramid and heads are decayed
    assert free == {"backbone.vit.pos_embed", *blocks}
    ours = ours_of(Detector(OurBackbone()), "backbone.vit.")
    assert {name: scale for name, (scale, _) in ours.items()} == pytest.approx(
        {name: scale for name, (scale, _) in rule.items()}
    )
    differ = {name for name in ours if ours[name][1] != rule[name][1]}
    # MAE's rule, this project's default, exempts every vector: biases, and every norm
    vectors = {name for name, p in Detector(OurBackbone()).named_parameters() if p.ndim == 1}
    assert differ == vectors - blocks


def mmseg_rule(backbone: nn.Module) -> Rule:
    """What mmsegmentation's constructor gives a segmenter with this backbone, in our names."""
    from mmseg.engine.optimizers import LearningRateDecayOptimizerConstructor

    model = nn.Module()
    model.backbone = backbone
    model.decode_head = nn.Conv2d(16, 3, kernel_size=1)
    constructor = LearningRateDecayOptimizerConstructor(
        {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": WEIGHT_DECAY}},
        {"num_layers": DEPTH, "decay_rate": DECAY, "decay_type": "layer_wise"},
    )
    groups = constructor(model).optimizer.param_groups
    renamed = (
        ("patch_embed.projection", "patch_embed.proj"),
        (".layers.", ".blocks."),
        (".ln", ".norm"),
        ("ffn.blocks.0.0.", "mlp.fc1."),
        ("ffn.blocks.1.", "mlp.fc2."),
    )
    rule = {}
    for group in groups:
        for name in group["param_names"]:
            for old, new in renamed:
                name = name.replace(old, new)
            rule[name] = (group["lr_scale"], group["weight_decay"])
    return rule


@pytest.mark.parametrize("kind", ["MAE", "BEiT"])
def test_against_mmsegmentation(kind: str) -> None:
    from segmentation.host import MODELS

    theirs = MODELS.build(
        {"type": kind, "img_size": 64, "embed_dims": 16, "num_layers": DEPTH, "num_heads": 2, "init_values": 1.0}
    )
    rule = mmseg_rule(theirs)
    architecture = ViTConfig(
        embed_dim=16,
        depth=DEPTH,
        num_heads=2,
        image_size=(64, 64),
        layer_scale=1.0,
        relative_position="table",
        position="learned" if kind == "MAE" else "none",
        qkv_bias="qv" if kind == "BEiT" else "fused",
    )
    model = nn.Module()
    model.backbone = ViT(architecture, final_norm=False)
    model.decode_head = nn.Conv2d(16, 3, kernel_size=1)
    ours = ours_of(model, "backbone.")
    assert ours.keys() == rule.keys()
    for name in rule:
        assert ours[name][0] == pytest.approx(rule[name][0], rel=1e-12), name
    # its list has `pos_embed`, its names `backbone.pos_embed`
    missed = {"backbone.cls_token"} | ({"backbone.pos_embed"} if kind == "MAE" else set())
    assert {name for name in rule if ours[name][1] != rule[name][1]} == missed
    assert all((ours[name][1], rule[name][1]) == (0.0, WEIGHT_DECAY) for name in missed)
    assert rule["backbone.blocks.0.attn.relative_position_bias_table"][1] == WEIGHT_DECAY  # on both sides
