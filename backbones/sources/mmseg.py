"""mmsegmentation's ViTs: its classes `MAE`, `BEiT` and `VisionTransformer`, bare or in a segmentor's checkpoint.

`MAE` and `BEiT` differ in that `MAE` has positions and one bias for queries, keys and values, `BEiT` two biases and no
positions; both have a layer scale and a relative table with its index in every block. `VisionTransformer` has PyTorch's
`in_proj` and none of these. Norms within a layer are `ln1` and `ln2`; a `ln1` outside is the final norm. By default a
`VisionTransformer` has no bias in its patch projection, which is read as zeros. Heads, necks and index buffers are
dropped. Norms in the patch projection or before the layers (`patch_norm`, `pre_norm`) are refused.

The final norm is applied to the last map there and to no map here, as MAE's and BEiT's segmentation have none. mmseg's
norms have an epsilon of 1e-5 unless `norm_cfg=dict(type="LN", eps=1e-6)`, as its configs for these classes say. A
`VisionTransformer` with `with_cls_token=False` has a class token that it leaves out of its layers, which no file tells.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from backbones.relative_position import table_index, table_rows
from backbones.sources.source import Renamed, Source, listed, rename_each, whole
from backbones.sources.timm import PLAIN_BLOCK, require_plain
from backbones.weights.checkpoint import Checkpoint

_WB = r"(weight|bias)"
_TABLE = "relative_position_bias_table"
SHARED = f"rel_pos_bias.{_TABLE}"
_OUTSIDE = rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|norm\.{_WB}"
PLAIN = re.compile(rf"{_OUTSIDE}|blocks\.\d+\.({PLAIN_BLOCK}|attn\.[qv]_bias)")
SCALED = re.compile(rf"{PLAIN.pattern}|blocks\.\d+\.(gamma_[12]|attn\.{_TABLE})|rel_pos_bias\.{_TABLE}")
_IN_PROJ = re.compile(r"attn\.attn\.in_proj_")  # VisionTransformer's
BACKBONE = "backbone."
DROP = (
    (r"(.*\.)?relative_position_index", "an index, made anew for every grid"),
    (r"(decode_head|auxiliary_head|neck)\..*", "a neck or head, of another task"),
)
_SAME = (r"(cls_token|pos_embed)$", r"\1")
_TO_OURS = (
    _SAME,
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"ln1\.", "norm."),
    (r"layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
    (r"layers\.(\d+)\.attn\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"layers\.(\d+)\.attn\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"layers\.(\d+)\.(attn\.(?!attn\.)|gamma_)", r"blocks.\1.\2"),
)
_TO_BOTH = (
    _SAME,
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"norm\.", "ln1."),
    (r"blocks\.(\d+)\.norm([12])\.", r"layers.\1.ln\2."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
)
_TO_PLAIN = (
    *_TO_BOTH,
    (r"blocks\.(\d+)\.attn\.qkv\.", r"layers.\1.attn.attn.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"layers.\1.attn.attn.out_proj."),
)
_TO_SCALED = (*_TO_BOTH, (r"blocks\.(\d+)\.(attn\.|gamma_)", r"layers.\1.\2"))


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors of the backbone in our names.

    Raises ValueError for a name that these classes do not have, and for one absent that they always have.
    """
    renamed = rename_each(tensors, ours, drop=DROP)
    state = renamed.state
    scaled = {end for end in ("gamma_1", _TABLE) if any(name.endswith(end) for name in state)}
    if len(scaled) == 1:
        raise ValueError(
            f"there are tensors named *{listed(scaled)} alone, and MAE and BEiT have both a layer scale and relative "
            "tables; the file is not whole."
        )
    biases = any(name.endswith("q_bias") for name in state)  # BEiT's, whose positions are the tables
    needed = [] if scaled and biases else ["pos_embed"]
    if not any(_IN_PROJ.search(name) for name in tensors):
        needed.append("patch_embed.proj.bias")
    whole(renamed, "cls_token", *needed, norm=False)
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or "patch_embed.proj.bias" in state:
        return renamed
    return replace(
        renamed,
        state={**state, "patch_embed.proj.bias": kernel.new_zeros(kernel.shape[0])},
        notes=("patch_embed.proj.bias: 0, the file has none (patch_bias=False)",),
    )


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state of mmseg's class as it loads it strictly; `final_norm=True` where there is a final norm.

    Weights with a layer scale or relative tables become `MAE` where they have positions and `BEiT` where they have not;
    all others `VisionTransformer` (`patch_bias=True`). What a class has and the weights have not starts without an
    effect: a layer scale of 1, relative tables and a bias of the keys of 0; a shared table is copied to every layer.
    Raises ValueError for what no class has a place for, and without a class token.
    """
    scaled = any(name.endswith(("gamma_1", _TABLE)) for name in checkpoint.state)
    model = "mmseg's MAE or BEiT" if scaled else "mmseg's VisionTransformer"
    require_plain(checkpoint, SCALED if scaled else PLAIN, model)
    wanted = ["cls_token"] if scaled else ["cls_token", "pos_embed"]
    if missing := [name for name in wanted if name not in checkpoint.state]:
        raise ValueError(
            f"{checkpoint.path}: has no {', '.join(missing)}, and {model} needs it; write another format, as `own`."
        )
    fused = not scaled or "pos_embed" in checkpoint.state
    state = _biases(checkpoint.state, fused=fused)
    if scaled:
        state = _without_effect(state, checkpoint)
    return {_by(_TO_SCALED if scaled else _TO_PLAIN, name): tensor for name, tensor in state.items()}


def _biases(state: Mapping[str, Tensor], *, fused: bool) -> dict[str, Tensor]:
    """Return the state with one bias of queries, keys and values, or BEiT's two.

    A bias of the keys adds the same to every score of a query, which softmax does not see.
    """
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = name.rpartition(".attn.")[0] + ".attn."
        if name.endswith("attn.q_bias") and fused:
            new[f"{block}qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), state[f"{block}v_bias"]])
        elif name.endswith("attn.qkv.bias") and not fused:
            new[f"{block}q_bias"], _, new[f"{block}v_bias"] = tensor.chunk(3)
        elif not (name.endswith("attn.v_bias") and fused):
            new[name] = tensor
    return new


def _without_effect(state: dict[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state with a layer scale, and a relative table with its index, in every block."""
    a = checkpoint.architecture
    kernel = state["patch_embed.proj.weight"]
    none = kernel.new_zeros(table_rows(a.relative_grid, class_token=True), a.num_heads)
    table = state.pop(SHARED, none)
    index = table_index(a.relative_grid, class_token=True, device=kernel.device)
    for i in range(a.depth):
        for gamma in ("gamma_1", "gamma_2"):
            state.setdefault(f"blocks.{i}.{gamma}", kernel.new_ones(a.embed_dim))
        state.setdefault(f"blocks.{i}.attn.{_TABLE}", table)
        state[f"blocks.{i}.attn.relative_position_index"] = index
    return state


def ours(name: str) -> str:
    """Return our name, or an empty one for what mmseg's classes have not, though another family of ours may."""
    new = _by(_TO_OURS, name.removeprefix(BACKBONE))
    return new if SCALED.fullmatch(new) else ""


def _by(rules: tuple[tuple[str, str], ...], name: str) -> str:
    """Return the name with the first rule that fits its beginning applied, an empty one where none does."""
    for pattern, replacement in rules:
        new, count = re.subn(rf"^{pattern}", replacement, name)
        if count:
            return new
    return ""


SOURCE = Source(
    name="mmseg",
    title="mmsegmentation's MAE, BEiT and VisionTransformer: backbones and segmentors' checkpoints",
    entries=("state_dict", "model"),
    rename=rename,
    restore=restore,
    written_entry="state_dict",
)
