"""Layer-wise decay: scales by hand, every parameter once, and MAE's own rule."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from backbones.config import ViTConfig
from backbones.param_groups import (
    Exempt,
    exempt_block_norms_and_position,
    exempt_nothing,
    exempt_vectors,
    exempt_vectors_and_embeddings,
    layer_of,
    param_groups,
)
from backbones.vit import ViT

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(16, 16))


class Headed(nn.Module):
    """A ViT under `backbone.` and a head."""

    def __init__(self, *, train_position: bool = True) -> None:
        super().__init__()
        self.backbone = ViT(TINY, train_position=train_position)
        self.head = nn.Linear(16, 3)


def test_scales_by_hand() -> None:
    groups = param_groups(Headed(), weight_decay=0.05, layer_decay=0.5, depth=2, prefix="backbone.")
    scale = {name: group.lr_scale for group in groups for name in group.names}
    assert scale["backbone.patch_embed.proj.weight"] == 0.125  # 0.5 ** 3: two blocks and the head above it
    assert scale["backbone.cls_token"] == scale["backbone.pos_embed"] == 0.125
    assert scale["backbone.blocks.0.mlp.fc1.bias"] == 0.25
    assert scale["backbone.blocks.1.attn.qkv.weight"] == 0.5
    assert scale["backbone.norm.weight"] == scale["head.weight"] == scale["head.bias"] == 1.0
    order = [(group.layer, group.weight_decay) for group in groups]
    assert order == [(layer, decay) for layer in range(4) for decay in (0.05, 0.0)]


@pytest.mark.parametrize("train_position", [True, False])
def test_every_trainable_parameter_once(train_position: bool) -> None:
    model = Headed(train_position=train_position)
    groups = param_groups(model, weight_decay=0.05, layer_decay=0.5, depth=2, prefix="backbone.")
    counts = Counter(id(p) for group in groups for p in group.params)
    assert counts == Counter(id(p) for p in model.parameters() if p.requires_grad)
    by_name = dict(model.named_parameters())
    for group in groups:
        assert all(by_name[name] is p for name, p in zip(group.names, group.params, strict=True))


def test_weight_decay_exemptions() -> None:
    fine_tuning = param_groups(ViT(TINY), weight_decay=0.1, depth=2)
    free = {name for group in fine_tuning if group.weight_decay == 0 for name in group.names}
    decayed = {name for group in fine_tuning if group.weight_decay == 0.1 for name in group.names}
    assert {
        "cls_token",
        "pos_embed",
        "norm.weight",
        "blocks.0.attn.qkv.bias",
        "patch_embed.proj.bias",
    } <= free
    assert decayed == {
        "patch_embed.proj.weight",
        *(f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    }
    pretraining = param_groups(ViT(TINY), weight_decay=0.1, depth=2, exempt=exempt_vectors)
    assert {n for g in pretraining if g.weight_decay for n in g.names} == decayed | {"cls_token", "pos_embed"}


def test_no_layer_decay_is_one_rate() -> None:
    assert {group.lr_scale for group in param_groups(ViT(TINY), weight_decay=0.1, depth=2)} == {1.0}


@pytest.mark.parametrize("prefix", ["encoder.", "backbone", ""])
def test_prefix_without_blocks_is_refused(prefix: str) -> None:
    # each of these would put the whole ViT into the head's layer
    message = f"no trainable parameter starts with '{prefix}blocks.'; the first is backbone.cls_token"
    with pytest.raises(ValueError, match=message):
        param_groups(Headed(), weight_decay=0.05, layer_decay=0.5, depth=2, prefix=prefix)


def test_block_beyond_the_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks\.1\.norm1\.weight is outside the depth of 1 blocks"):
        param_groups(ViT(TINY), weight_decay=0.05, depth=1)


def test_head_of_another_name_is_the_last_layer() -> None:
    assert layer_of("head.blocks.0.weight", depth=2, prefix="backbone.") == 3
    assert layer_of("backbone.blocks.0.norm1.weight", depth=2, prefix="backbone.") == 1
    assert layer_of("encoder.mask_token", depth=2, prefix="encoder.") == 0


def mae_rule(
    model: nn.Module, *, depth: int, weight_decay: float, layer_decay: float
) -> dict[str, tuple[float, float]]:
    """Learning-rate scale and weight decay of every parameter, by the rule of MAE's `util/lr_decay.py`."""
    num_layers = depth + 1
    scales = [layer_decay ** (num_layers - i) for i in range(num_layers + 1)]
    rule = {}
    for name, parameter in model.named_parameters():
        free = parameter.ndim == 1 or name in {"pos_embed", "cls_token", "dist_token"}
        if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
            layer = 0
        elif name.startswith("blocks"):
            layer = int(name.split(".")[1]) + 1
        else:
            layer = num_layers
        rule[name] = scales[layer], 0.0 if free else weight_decay
    return rule


@pytest.mark.parametrize(("depth", "layer_decay"), [(1, 0.65), (5, 0.75)])
def test_equals_the_rule_of_mae(depth: int, layer_decay: float) -> None:
    model = ViT(ViTConfig(embed_dim=16, depth=depth, num_heads=2, patch_size=8, image_size=(16, 16)))
    model.add_module("fc_norm", nn.LayerNorm(16))
    model.add_module("head", nn.Linear(16, 3))
    groups = param_groups(model, weight_decay=0.05, layer_decay=layer_decay, depth=depth)
    ours = {name: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}
    assert ours == mae_rule(model, depth=depth, weight_decay=0.05, layer_decay=layer_decay)


def test_frozen_parameters_are_left_out() -> None:
    model = Headed()
    model.backbone.patch_embed.requires_grad_(False)
    groups = param_groups(model, weight_decay=0.05, depth=2, prefix="backbone.")
    names = {name for group in groups for name in group.names}
    assert not any("patch_embed" in name for name in names)
    assert isinstance(model.backbone.cls_token, torch.Tensor) and "backbone.cls_token" in names


# every parameter that some form of the ViT has, its layer of a ViT of two blocks, and whether it is free of weight
# decay by: MAE's fine-tuning, MAE's pre-training, ViTDet-B and -L, ViTDet-H
TABLE = {
    "cls_token": (0, True, False, False, False),
    "dist_token": (0, True, False, False, False),
    "pos_embed": (0, True, False, True, False),
    "patch_embed.proj.weight": (0, False, False, False, False),
    "patch_embed.proj.bias": (0, True, True, False, False),
    "blocks.0.norm1.weight": (1, True, True, True, False),
    "blocks.0.norm2.bias": (1, True, True, True, False),
    "blocks.0.attn.qkv.weight": (1, False, False, False, False),
    "blocks.1.attn.qkv.bias": (2, True, True, False, False),
    "blocks.0.attn.q_bias": (1, True, True, False, False),
    "blocks.1.attn.v_bias": (2, True, True, False, False),
    "blocks.0.attn.rel_pos_h": (1, False, False, False, False),
    "blocks.1.attn.rel_pos_w": (2, False, False, False, False),
    "blocks.1.attn.relative_position_bias_table": (2, False, False, False, False),
    "blocks.0.gamma_1": (1, True, True, False, False),
    "blocks.1.gamma_2": (2, True, True, False, False),
    "blocks.1.mlp.fc2.weight": (2, False, False, False, False),
    # BEiT's code puts what the blocks share behind them
    "rel_pos_bias.relative_position_bias_table": (3, False, False, False, False),
    "window_rel_pos_bias.relative_position_bias_table": (3, False, False, False, False),
    "norm.weight": (3, True, True, False, False),
}


def test_every_kind_of_parameter() -> None:
    rules: list[Exempt] = [
        exempt_vectors_and_embeddings,
        exempt_vectors,
        exempt_block_norms_and_position,
        exempt_nothing,
    ]
    forms = [
        ViT(replace(TINY, distilled=True)),
        ViT(replace(TINY, qkv_bias="qv", layer_scale=0.1, relative_position="table")),
        ViT(replace(TINY, relative_position="decomposed"), class_token=False),
        ViT(replace(TINY, relative_position="shared_table", window_size=2, global_blocks=(1,)), class_token=False),
    ]
    seen = set()
    for form in forms:
        for column, rule in enumerate(rules, start=1):
            groups = param_groups(form, weight_decay=0.1, layer_decay=0.5, depth=2, exempt=rule)
            for group in groups:
                for name in set(group.names) & TABLE.keys():
                    seen.add(name)
                    assert (group.layer, group.weight_decay == 0.0) == (TABLE[name][0], TABLE[name][column]), name
                    assert group.lr_scale == 0.5 ** (3 - group.layer)
    assert seen == TABLE.keys()


def test_norms_of_a_pyramid_are_decayed_by_the_rule_of_vitdet() -> None:
    # as in detectron2, whose own LayerNorm is none of the norms that it exempts
    norm = nn.Parameter(torch.ones(8))
    assert not exempt_block_norms_and_position("backbone.pyramid.simfp_2.4.norm.weight", norm)
    assert not exempt_block_norms_and_position("backbone.pyramid.simfp_2.1.weight", norm)
    assert exempt_block_norms_and_position("backbone.vit.blocks.11.norm2.weight", norm)
