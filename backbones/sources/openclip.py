"""CLIP's ViTs in the layout of OpenAI and OpenCLIP (arXiv 2103.00020): `visual.transformer.resblocks.*`.

The state dict of the whole model, or of `visual` alone. Text, projections and scales are dropped. No tensor shows the
GELU (OpenAI's is quick, most of OpenCLIP's are exact) nor the heads, so OpenCLIP's open_clip_config.json beside the
file is needed, as every model of its on the hub has one. Towers that are timm's (`visual.trunk.*`) are refused: timm
publishes the same. OpenAI's own downloads are TorchScript archives, which hold code and are not read.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.sources.huggingface_config import read_object
from backbones.sources.huggingface_towers import Layout, rename_as
from backbones.sources.source import Renamed, Source
from backbones.weights.normalisation import OPENAI_CLIP, Normalisation

CONFIG = "open_clip_config.json"
_PROJECTION = "a projection to the space that images and texts share"
_TEXT = (
    (
        r"(transformer|token_embedding|ln_final|text)\..*|positional_embedding|attn_mask|context_length|vocab_size"
        r"|input_resolution",
        "the tower of the text",
    ),
    (r"text_projection", _PROJECTION),
    (r"logit_(scale|bias)", "of the loss of images and texts"),
)
_ALONE = Layout(
    sign=re.compile(r"transformer\.resblocks\..*"),
    prefix="",
    outside={
        theirs: (ours, 0, 1)
        for theirs, ours in {
            "class_embedding": "cls_token",
            "positional_embedding": "pos_embed",
            "conv1": "patch_embed.proj",
            "ln_pre": "norm_pre",
            "ln_post": "norm",
        }.items()
    },
    block=re.compile(r"transformer\.resblocks\.(\d+)\.(.+)"),
    in_block={
        theirs: (ours, 0, 1)
        for theirs, ours in {
            "ln_1": "norm1",
            "ln_2": "norm2",
            "attn.in_proj_weight": "attn.qkv.weight",
            "attn.in_proj_bias": "attn.qkv.bias",
            "attn.out_proj": "attn.proj",
            "mlp.c_fc": "mlp.fc1",
            "mlp.c_proj": "mlp.fc2",
            "ls_1.gamma": "gamma_1",
            "ls_2.gamma": "gamma_2",
        }.items()
    },
    drop=((r"proj", _PROJECTION),),
    needed=("cls_token", "pos_embed", "norm_pre.weight"),
    untold={"norm_eps": 1e-5},
    normalisation=OPENAI_CLIP,
)
# of vision_cfg: what tensors show, or what changes no token in evaluation
_SHOWN = {
    "layers",
    "width",
    "mlp_ratio",
    "patch_size",
    "image_size",
    "ls_init_value",
    "patch_dropout",
    "pos_embed_type",
}
_SHOWN |= {"head_width", "output_tokens", "pool_type", "final_ln_after_pool", "no_ln_pre"}


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the vision tower's tensors in our names.

    Raises ValueError for a name that the layout does not have, and for one absent that all files have.
    """
    if not any(name.startswith("visual.") for name in tensors):
        return rename_as(_ALONE, tensors)
    tower = {name.removeprefix("visual."): t for name, t in tensors.items() if name.startswith("visual.")}
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("visual.")}
    renamed = rename_as(_ALONE, tower)
    rules = [(re.compile(pattern), rule) for pattern, rule in _TEXT]
    dropped = []
    for name in rest:
        rule = next((rule for pattern, rule in rules if pattern.fullmatch(name)), None)
        if rule is None:
            raise ValueError(f"{name} belongs to no CLIP of OpenAI or OpenCLIP; is the file of another kind?")
        dropped.append(f"{name}: {rule}")
    return replace(renamed, dropped=(*renamed.dropped, *dropped))


def beside(renamed: Renamed, path: Path) -> Renamed:
    """Return it with what open_clip_config.json tells: heads, the kind of GELU, mean and std.

    Raises ValueError where there is none, it cannot be read, is of other weights, or of a ViT that computes otherwise.
    """
    config = read_object(path.with_name(CONFIG))
    model, pixels = config.get("model_cfg"), config.get("preprocess_cfg") or {}
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict) or not isinstance(pixels, dict):
        raise ValueError(
            f"CLIP's ViTs of OpenAI have a quick GELU, and most of OpenCLIP's an exact one, and no tensor tells heads. "
            f"Put OpenCLIP's {CONFIG} beside the file: "
            '{"model_cfg": {"quick_gelu": true, "vision_cfg": {"width": 768, "head_width": 64}}} is that of '
            "OpenAI's ViT-B."
        )
    vision: dict[str, Any] = model["vision_cfg"]
    if other := sorted(name for name, value in vision.items() if name not in _SHOWN and value):
        raise ValueError(f"{CONFIG} beside it has {', '.join(other)} in vision_cfg, which may change what it computes.")
    kernel = renamed.state.get("patch_embed.proj.weight")
    if kernel is None:
        return renamed  # refused later
    width, head, quick = vision.get("width", kernel.shape[0]), vision.get("head_width", 64), model.get("quick_gelu")
    if width != kernel.shape[0]:
        raise ValueError(f"{CONFIG} beside it has width {width!r}, and the weights show {kernel.shape[0]}.")
    if type(head) is not int or head < 1 or kernel.shape[0] % head:
        raise ValueError(f"{CONFIG} beside it has head_width {head!r}, which does not divide the width of {width}.")
    if quick not in (None, True, False):
        raise ValueError(f"{CONFIG} beside it has quick_gelu {quick!r}, which is neither true nor false.")
    return replace(
        renamed,
        num_heads=kernel.shape[0] // head,
        normalisation=_normalisation(pixels),
        untold={**renamed.untold, "activation": "quick_gelu" if quick else "gelu"},
    )


def _normalisation(pixels: Mapping[str, Any]) -> Normalisation:
    if pixels.get("mean") is None and pixels.get("std") is None:
        return OPENAI_CLIP  # OpenCLIP's default
    mean, std = pixels.get("mean"), pixels.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        raise ValueError(f"{CONFIG} beside it has mean {mean!r} and std {std!r}, which are no lists of numbers.")
    return Normalisation(tuple(mean), tuple(std))


SOURCE = Source(
    name="openclip",
    title="CLIP's ViTs in the layout of OpenAI and OpenCLIP, with open_clip_config.json beside the file",
    entries=("state_dict", "model"),
    rename=rename,
    beside=beside,
)
