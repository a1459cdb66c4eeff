"""transformers' Dinov2, DINOv3ViT, Aimv2, Siglip, Siglip2, CLIP and SAM files, which source `huggingface` takes.

Names are those of version 4 (what the hub holds) and of version 5. What is several layers there and one here is joined:
queries, keys and values, and a gate with what it gates. Mask tokens, heads and the tower of the text are dropped by the
rules of a `Layout`. Siglip2's patches are a linear layer, for images of any shape; its table of positions, which
transformers resamples bilinearly with antialias, is taken as any other.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from backbones.sources.parts import Place, join_parts
from backbones.sources.source import Renamed, rename_each, whole
from backbones.weights.normalisation import HALF, OPENAI_CLIP, Normalisation


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of one kind of model; a stem is a name without `.weight` or `.bias`."""

    sign: re.Pattern[str]
    """The whole of a name that no other kind has."""
    prefix: str
    """What may stand before all names, as a regular expression."""
    outside: Mapping[str, Place]
    """Their stems to ours, outside the blocks."""
    block: re.Pattern[str]
    """Finds the number of a block and the rest of the name."""
    in_block: Mapping[str, Place]
    drop: tuple[tuple[str, str], ...]
    """Regular expressions of whole names, and the rule by which they are dropped."""
    needed: tuple[str, ...]
    """What every file of the kind has, in our names."""
    positionless: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ViTConfig` of the kind's models without a position table; empty where all have one."""
    untold: Mapping[str, Any] = field(default_factory=dict)
    """As `Renamed.untold`, by the defaults of transformers' configuration."""
    keys_without_bias: bool = False
    """Whether the layer of the keys has no bias in usual files of the kind."""
    heads: Mapping[int, int] = field(default_factory=dict)
    """Heads by width where the kind has others than a plain ViT, for files without config.json."""
    normalisation: Normalisation | None = None
    """Of transformers' image processor of the kind; None is ImageNet's."""
    notes: tuple[str, ...] = ()


def joined(*stems: tuple[str, ...], ours: str) -> dict[str, Place]:
    """Return the places of parts, each under its spellings."""
    return {stem: (ours, part, len(stems)) for part, spellings in enumerate(stems) for stem in spellings}


def alone(names: Mapping[str, str]) -> dict[str, Place]:
    """Return the places of layers that are one there and here, by their names there."""
    return {theirs: (ours, 0, 1) for theirs, ours in names.items()}


_DINO = r"(?:dinov2(?:_with_registers)?\.)?"
DINOV2 = Layout(
    sign=re.compile(rf"{_DINO}encoder\.layer\.\d+\.layer_scale1\.lambda1"),
    prefix=_DINO,
    outside=alone(
        {
            "embeddings.cls_token": "cls_token",
            "embeddings.register_tokens": "reg_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "layernorm": "norm",
        }
    ),
    block=re.compile(r"encoder\.layer\.(\d+)\.(.+)"),
    in_block=alone(
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "attention.output.dense": "attn.proj",
            "attention.o_proj": "attn.proj",
            "layer_scale1.lambda1": "gamma_1",
            "layer_scale2.lambda1": "gamma_2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
    )
    | joined(
        *((f"attention.attention.{long}", f"attention.{long[0]}_proj") for long in ("query", "key", "value")),
        ours="attn.qkv",
    )
    | alone({"mlp.weights_in": "mlp.fc1", "mlp.weights_out": "mlp.fc2", "mlp.down_proj": "mlp.fc2"})
    | joined(("mlp.gate_proj",), ("mlp.up_proj",), ours="mlp.fc1"),
    drop=(
        (rf"{_DINO}embeddings\.mask_token", "DINOv2's token for masked patches"),
        (r"classifier\.(weight|bias)", "a head on the class token beside the mean of the patches"),
    ),
    needed=("cls_token", "pos_embed", "blocks.0.gamma_1"),
)
# of transformers 5 first
_DINO3 = r"(?:model\.)?layer\.(\d+)\.(.+)"
DINOV3 = Layout(
    sign=re.compile(r"(?:model\.)?layer\.\d+\.layer_scale1\.lambda1"),
    prefix="",
    outside=alone(
        {
            "embeddings.cls_token": "cls_token",
            "embeddings.register_tokens": "reg_token",
            "embeddings.patch_embeddings": "patch_embed.proj",
            "norm": "norm",
        }
    ),
    block=re.compile(_DINO3),
    in_block=alone(
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "attention.o_proj": "attn.proj",
            "layer_scale1.lambda1": "gamma_1",
            "layer_scale2.lambda1": "gamma_2",
            "mlp.up_proj": "mlp.fc1",
            "mlp.down_proj": "mlp.fc2",
        }
    )
    | joined(*((f"attention.{part}_proj",) for part in "qkv"), ours="attn.qkv"),
    drop=((r"embeddings\.mask_token", "DINOv3's token for masked patches"),),
    needed=("cls_token", "blocks.0.gamma_1"),
    untold={"activation": "gelu", "norm_eps": 1e-5, "rotary": "centred", "rotary_base": 100.0},
    heads={1280: 20, 4096: 32},  # ViT-H+ and 7B, 64 and 128 channels each (facebookresearch/dinov3, hub/backbones.py)
    keys_without_bias=True,
)
DINOV3_GATED = replace(
    DINOV3,
    sign=re.compile(r"(?:model\.)?layer\.\d+\.mlp\.gate_proj\.weight"),
    in_block={**DINOV3.in_block, **joined(("mlp.gate_proj",), ("mlp.up_proj",), ours="mlp.fc1")},
    untold={**DINOV3.untold, "activation": "swiglu"},
)
_VISION = r"(?:vision_model\.)?"
_TEXT = (
    (r"text_model\..*", "the tower of the text"),
    (r"(text|visual)_projection\.weight", "a projection to the space that images and texts share"),
    (r"logit_(scale|bias)", "of the loss of images and texts"),
    (r"(.*\.)?position_ids", "an index"),
    (r"classifier\.(weight|bias)", "a head on the mean of the patches"),
)
_TOWER = {
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.position_embedding.weight": "pos_embed",
    "post_layernorm": "norm",
}
_TOWER_BLOCK = alone(
    {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
) | joined(*((f"self_attn.{part}_proj",) for part in "qkv"), ours="attn.qkv")
SIGLIP = Layout(
    sign=re.compile(rf"{_VISION}encoder\.layers\.\d+\.self_attn\.q_proj\.weight"),
    prefix=_VISION,
    outside=alone(_TOWER),
    block=re.compile(r"encoder\.layers\.(\d+)\.(.+)"),
    in_block=_TOWER_BLOCK,
    drop=((rf"{_VISION}head\..*", "SigLIP's head, which pools the tokens by attention"), *_TEXT),
    needed=("pos_embed",),
    untold={"activation": "gelu_tanh"},
    normalisation=HALF,
    notes=("cls_token: SigLIP has none; the ViT is taken without",),
)
CLIP = Layout(
    sign=re.compile(rf"{_VISION}pre_layrnorm\.weight"),  # transformers' spelling
    prefix=_VISION,
    outside=alone({**_TOWER, "embeddings.class_embedding": "cls_token", "pre_layrnorm": "norm_pre"}),
    block=SIGLIP.block,
    in_block=_TOWER_BLOCK,
    drop=_TEXT,
    needed=("cls_token", "pos_embed"),
    untold={"activation": "quick_gelu", "norm_eps": 1e-5},
    normalisation=OPENAI_CLIP,
)
AIMV2 = Layout(
    sign=re.compile(rf"{_VISION}encoder\.layers\.\d+\.ffn\.gate_proj\.weight"),
    prefix=_VISION,
    outside=alone(
        {
            "embeddings.patch_embed": "patch_embed.proj",
            "embeddings.rms_norm": "patch_embed.norm",
            "embeddings.position_embedding.weight": "pos_embed",
            "rms_norm": "norm",
        }
    ),
    block=SIGLIP.block,
    in_block=alone(
        {
            "rms_norm1": "norm1",
            "rms_norm2": "norm2",
            "attention.out_proj": "attn.proj",
            "ffn.down_proj": "mlp.fc2",
        }
    )
    | joined(*((f"attention.{part}_proj",) for part in "qkv"), ours="attn.qkv")
    | joined(("ffn.gate_proj",), ("ffn.up_proj",), ours="mlp.fc1"),
    drop=((rf"{_VISION}head\..*", "AIMv2's head, which pools the tokens by attention"), *_TEXT),
    needed=("patch_embed.norm.weight",),
    positionless={"position": "computed"},  # for native resolution (`is_native`)
    untold={"activation": "swiglu", "norm_eps": 1e-5},
    heads={1024: 8, 1536: 12, 2048: 16, 3072: 24},  # 128 channels each (apple's configurations)
    normalisation=OPENAI_CLIP,
    notes=("cls_token: AIMv2 has none; the ViT is taken without",),
)
# in the names of Apple's own code, which most of its hub has
AIMV2_APPLE = replace(
    AIMV2,
    sign=re.compile(r"preprocessor\.patchifier\.proj\.weight"),
    prefix="",
    outside=alone(
        {
            "preprocessor.patchifier.proj": "patch_embed.proj",
            "preprocessor.patchifier.norm": "patch_embed.norm",
            "preprocessor.pos_embed": "pos_embed",
            "trunk.post_trunk_norm": "norm",
        }
    ),
    block=re.compile(r"trunk\.blocks\.(\d+)\.(.+)"),
    in_block=alone(
        {"norm_1": "norm1", "norm_2": "norm2", "attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "mlp.fc2": "mlp.fc2"}
    )
    | joined(("mlp.fc1",), ("mlp.fc3",), ours="mlp.fc1"),
    drop=(),
)
SAM = Layout(
    sign=re.compile(r"vision_encoder\.layers\.\d+\.attn\.qkv\.weight"),
    prefix=r"(?:vision_encoder\.)?",
    outside=alone({"patch_embed.projection": "patch_embed.proj", "pos_embed": "pos_embed"}),
    block=re.compile(r"layers\.(\d+)\.(.+)"),
    in_block=alone(
        {
            **{f"attn.{name}": f"attn.{name}" for name in ("qkv", "proj", "rel_pos_h", "rel_pos_w")},
            "mlp.lin1": "mlp.fc1",
            "mlp.lin2": "mlp.fc2",
            "layer_norm1": "norm1",
            "layer_norm2": "norm2",
        }
    ),
    drop=(
        (r"vision_encoder\.neck\..*", "SAM's neck, which its mask decoder reads"),
        (r"(prompt_encoder|mask_decoder|shared_image_embedding)\..*", "SAM's prompts and masks"),
    ),
    needed=("pos_embed",),
    untold={"activation": "gelu"},
    notes=("cls_token: SAM has none; the ViT is taken without",),
)
# the first whose sign is there: CLIP has SigLIP's too, and a DINOv3 with a gate that of one without
LAYOUTS = (DINOV2, DINOV3_GATED, DINOV3, AIMV2, AIMV2_APPLE, SAM, CLIP, SIGLIP)


COMPUTED = ("positions: there is no table, as in AIMv2 for native resolution; they are computed at every size",)


def layout_of(tensors: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout that the names are of, None where they are of none."""
    return next((layout for layout in LAYOUTS if any(layout.sign.fullmatch(name) for name in tensors)), None)


def rename_as(layout: Layout, tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors in our names.

    Raises ValueError for a name that the layout does not have, for parts of a joined tensor that are absent or there
    twice, and for a tensor absent that all files of the kind have.
    """
    found, known = join_parts(tensors, lambda name: _place(layout, name), keys_without_bias=layout.keys_without_bias)
    if "reg_token" in found and not found["reg_token"].numel():  # transformers writes a tensor without a number
        del found["reg_token"]
    renamed = rename_each(_with_axes(found), lambda name: name if name in known else "", drop=layout.drop)
    renamed = whole(renamed, *layout.needed)
    bare = bool(layout.positionless) and "pos_embed" not in renamed.state
    kernel = renamed.state.get("patch_embed.proj.weight")
    return replace(
        renamed,
        num_heads=None if kernel is None else layout.heads.get(kernel.shape[0]),
        image_size=_stated_size(found, kernel),
        untold={**layout.untold, **layout.positionless} if bare else layout.untold,
        normalisation=layout.normalisation,
        notes=renamed.notes + layout.notes + COMPUTED * bare,
    )


def _stated_size(found: Mapping[str, Tensor], kernel: Tensor | None) -> tuple[int, int] | None:
    """Return height and width in pixels by a table of positions that has an axis for each, None for others."""
    table = found.get("pos_embed")
    if table is None or table.ndim != 4 or kernel is None:
        return None
    return table.shape[1] * kernel.shape[2], table.shape[2] * kernel.shape[3]


def _with_axes(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the axes that ours have.

    Theirs may be a table of positions (P, D) or (1, h, w, D), a class token (D,), and patches of RGB as a linear layer
    of their pixels by row, column and channel (Siglip2).
    """
    shaped = dict(found)
    if (table := found.get("pos_embed")) is not None and table.ndim in (2, 4):
        shaped["pos_embed"] = table[None] if table.ndim == 2 else table.flatten(1, 2)
    if (linear := found.get("patch_embed.proj.weight")) is not None and linear.ndim == 2:
        side = math.isqrt(linear.shape[1] // 3)
        if side * side * 3 != linear.shape[1]:
            raise ValueError(
                f"the patch projection has {linear.shape[1]} columns, which are no square of pixels in 3 channels."
            )
        shaped["patch_embed.proj.weight"] = linear.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2)
    if (token := found.get("cls_token")) is not None and token.ndim == 1:
        shaped["cls_token"] = token[None, None]
    return shaped


def _place(layout: Layout, name: str) -> Place | None:
    bare = re.sub(rf"^{layout.prefix}", "", name)
    block = layout.block.fullmatch(bare)
    before, rest, table = (
        (f"blocks.{int(block[1])}.", block[2], layout.in_block) if block else ("", bare, layout.outside)
    )
    stem, _, leaf = rest.rpartition(".")
    for found, after in ((rest, ""), (stem, f".{leaf}")):
        if found in table:
            ours, part, of = table[found]
            return f"{before}{ours}{after}", part, of
    return None
