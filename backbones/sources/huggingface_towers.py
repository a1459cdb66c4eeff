"""transformers' Dinov2, Dinov2WithRegisters, Siglip and CLIP files, which source `huggingface` takes as well.

Names are those of version 4 (what the hub holds) and of version 5. What is several layers there and one here is joined:
queries, keys and values, and a gate with what it gates. Mask tokens, heads and the tower of the text are dropped by the
rules of a `Layout`. Siglip2's own layout, whose patch projection is a linear layer for images of any shape, is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from backbones.sources.source import Renamed, join, rename_each, whole
from backbones.weights.normalisation import HALF, OPENAI_CLIP, Normalisation

Place = tuple[str, int, int]  # our name, which part of that tensor, of how many


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
    untold: Mapping[str, Any] = field(default_factory=dict)
    """As `Renamed.untold`, by the defaults of transformers' configuration."""
    normalisation: Normalisation | None = None
    """Of transformers' image processor of the kind; None is ImageNet's."""
    notes: tuple[str, ...] = ()


def _joined(*stems: tuple[str, ...], ours: str) -> dict[str, Place]:
    """Return the places of parts, each under its spellings."""
    return {stem: (ours, part, len(stems)) for part, spellings in enumerate(stems) for stem in spellings}


def _alone(names: Mapping[str, str]) -> dict[str, Place]:
    return {theirs: (ours, 0, 1) for theirs, ours in names.items()}


_DINO = r"(?:dinov2(?:_with_registers)?\.)?"
DINOV2 = Layout(
    sign=re.compile(rf"{_DINO}encoder\.layer\.\d+\.layer_scale1\.lambda1"),
    prefix=_DINO,
    outside=_alone(
        {
            "embeddings.cls_token": "cls_token",
            "embeddings.register_tokens": "reg_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "layernorm": "norm",
        }
    ),
    block=re.compile(r"encoder\.layer\.(\d+)\.(.+)"),
    in_block=_alone(
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
    | _joined(
        *((f"attention.attention.{long}", f"attention.{long[0]}_proj") for long in ("query", "key", "value")),
        ours="attn.qkv",
    )
    | _alone({"mlp.weights_in": "mlp.fc1", "mlp.weights_out": "mlp.fc2", "mlp.down_proj": "mlp.fc2"})
    | _joined(("mlp.gate_proj",), ("mlp.up_proj",), ours="mlp.fc1"),
    drop=(
        (rf"{_DINO}embeddings\.mask_token", "DINOv2's token for masked patches"),
        (r"classifier\.(weight|bias)", "a head on the class token beside the mean of the patches"),
    ),
    needed=("cls_token", "pos_embed", "blocks.0.gamma_1"),
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
_TOWER_BLOCK = _alone(
    {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
) | _joined(*((f"self_attn.{part}_proj",) for part in "qkv"), ours="attn.qkv")
SIGLIP = Layout(
    sign=re.compile(rf"{_VISION}encoder\.layers\.\d+\.self_attn\.q_proj\.weight"),
    prefix=_VISION,
    outside=_alone(_TOWER),
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
    outside=_alone({**_TOWER, "embeddings.class_embedding": "cls_token", "pre_layrnorm": "norm_pre"}),
    block=SIGLIP.block,
    in_block=_TOWER_BLOCK,
    drop=_TEXT,
    needed=("cls_token", "pos_embed"),
    untold={"activation": "quick_gelu", "norm_eps": 1e-5},
    normalisation=OPENAI_CLIP,
)
LAYOUTS = (DINOV2, CLIP, SIGLIP)  # the first whose sign is there: CLIP has SigLIP's too


def layout_of(tensors: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout that the names are of, None where they are of none."""
    return next((layout for layout in LAYOUTS if any(layout.sign.fullmatch(name) for name in tensors)), None)


def rename_as(layout: Layout, tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors in our names.

    Raises ValueError for a name that the layout does not have, for parts of a joined tensor that are absent or there
    twice, and for a tensor absent that all files of the kind have.
    """
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, int], dict[int, tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        place = _place(layout, name)
        if place is None:
            found[name] = tensor  # dropped or refused
            continue
        ours, part, of = place
        if part in (held := parts.setdefault((ours, of), {})):
            raise ValueError(f"{name} and {held[part][0]} are the same part of {ours}; the file mixes two versions.")
        held[part] = (name, tensor)
    known = {ours for ours, _ in parts}
    for (ours, of), held in parts.items():
        if len(held) != of:
            names = ", ".join(name for name, _ in held.values())
            raise ValueError(f"{ours} cannot be joined: of {of} parts there are {len(held)} in the file ({names}).")
        found[ours] = _joined_parts(ours, [held[part] for part in range(of)])
    renamed = rename_each(_with_axes(found), lambda name: name if name in known else "", drop=layout.drop)
    renamed = whole(renamed, *layout.needed)
    return replace(
        renamed, untold=layout.untold, normalisation=layout.normalisation, notes=renamed.notes + layout.notes
    )


def _with_axes(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, a table of positions (P, D) and a class token (D,) with the axes that ours have."""
    shaped = dict(found)
    if (table := found.get("pos_embed")) is not None and table.ndim == 2:
        shaped["pos_embed"] = table[None]
    if (token := found.get("cls_token")) is not None and token.ndim == 1:
        shaped["cls_token"] = token[None, None]
    return shaped


def _joined_parts(ours: str, parts: list[tuple[str, Tensor]]) -> Tensor:
    return parts[0][1] if len(parts) == 1 else join(ours, dict(parts))


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
