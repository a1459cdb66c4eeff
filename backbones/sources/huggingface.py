"""transformers' ViTMAE, ViT, IJepa and Beit files, with the names of version 4 (what the hub holds) and of version 5.

Dinov2, DINOv3ViT, Siglip and CLIP are those of backbones/sources/huggingface_towers.py.

Queries, keys and values are three layers there and one here; Beit has no bias for the keys. `lambda_1` is our
`gamma_1`, `pooler.layernorm` our `fc_norm`, `classifier` our `head`. ViT's pooler, Beit's mask token and head of
pre-training, and index buffers are dropped.

Norms have an epsilon of 1e-12 by transformers' configs and of 1e-6 in the code that the weights come from, and here.
In a freshly initialised ViT-B at 224 pixels that moves patch tokens, whose values are about 0.8, by 2e-5 at most and
the class token, whose variance before the first norm is the lowest, by 9e-4.

`config.json` and `preprocessor_config.json` beside the file tell heads, image size and normalisation
(backbones/sources/huggingface_config.py). Without them heads are concluded from the width, and pixels are taken to be
normalised with 0.5 where there is a pooler, a classifier or a layer scale (Google's ViT, Beit), and with ImageNet's
constants otherwise (ViTMAE).
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from backbones.sources.huggingface_config import beside
from backbones.sources.huggingface_towers import layout_of, rename_as
from backbones.sources.source import (
    BEIT_ALONE,
    DECODER,
    Renamed,
    Source,
    check_decoder,
    join,
    listed,
    rename_each,
    whole,
)
from backbones.sources.timm import PLAIN_BLOCK, require_norm, require_plain
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.normalisation import HALF

_WB = r"(weight|bias)"
_TABLE = "relative_position_bias_table"
_BASE = r"(?:(?:vit|beit|ijepa)\.)?"
DROP = (
    (rf"{_BASE}embeddings\.mask_token", "the token for masked patches of another pre-training"),
    (rf"{_BASE}pooler\.dense\.{_WB}", "ViT's pooler, a layer behind the class token"),
    (r"(.*\.)?relative_position_index", "an index, made anew for every grid"),
    (rf"lm_head\.{_WB}", "Beit's head of pre-training"),
)
# ours: theirs, of version 4 first
_OUTSIDE = {
    "cls_token": ("embeddings.cls_token",),
    "pos_embed": ("embeddings.position_embeddings",),
    "patch_embed.proj": ("embeddings.patch_embeddings.projection",),
    "norm": ("layernorm",),
    "fc_norm": ("pooler.layernorm",),
    "head": ("classifier",),
    f"rel_pos_bias.{_TABLE}": (f"encoder.relative_position_bias.{_TABLE}", f"shared_position_bias.{_TABLE}"),
    "mask_token": ("decoder.mask_token",),
    "decoder_pos_embed": ("decoder.decoder_pos_embed",),
    **{name: (f"decoder.{name}",) for name in ("decoder_embed", "decoder_norm", "decoder_pred")},
}
_IN_BLOCK = {
    "norm1": ("layernorm_before",),
    "norm2": ("layernorm_after",),
    "attn.proj": ("attention.output.dense", "attention.o_proj"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
    "gamma_1": ("lambda_1",),
    "gamma_2": ("lambda_2",),
    f"attn.{_TABLE}": (f"attention.attention.relative_position_bias.{_TABLE}", f"relative_position_bias.{_TABLE}"),
}
_OURS_OUTSIDE = {theirs: ours for ours, spellings in _OUTSIDE.items() for theirs in spellings}
_OURS_IN_BLOCK = {theirs: ours for ours, spellings in _IN_BLOCK.items() for theirs in spellings}
_PARTS = ("query", "key", "value")
# transformers 5 saves the layers of the decoder as `decoder_encoder.layer`, the hub has `decoder_layers`
_BLOCK = re.compile(rf"(?:{_BASE}(?:encoder\.layer|layers)|(decoder)\.decoder_(?:layers|encoder\.layer))\.(\d+)\.(.+)")
_QKV = re.compile(rf"attention\.(?:attention\.(query|key|value)|(q|k|v)_proj)\.{_WB}")

_PLAIN = rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.{PLAIN_BLOCK}|norm\.{_WB}"
VIT = re.compile(rf"{_PLAIN}|head\.{_WB}")
VIT_MAE = re.compile(rf"{_PLAIN}|{DECODER.pattern}")
BEIT = re.compile(
    rf"{VIT.pattern}|fc_norm\.{_WB}|blocks\.\d+\.(gamma_[12]|attn\.([qv]_bias|{_TABLE}))|rel_pos_bias\.{_TABLE}"
)


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors in our names, queries, keys and values joined.

    Raises ValueError for a name that none of the models has, for queries without keys or values, and for one
    absent that all files of the model have.
    """
    if layout := layout_of(tensors):
        return rename_as(layout, tensors)
    joined = _joined(tensors)
    renamed = rename_each(
        joined, lambda name: name if name in joined and name not in tensors else _ours(name), drop=DROP
    )
    beit = any(name.endswith(BEIT_ALONE) for name in renamed.state)
    # Beit's final norm is one of two or none (use_mean_pooling), its positions are checked with config.json
    # without a class token it is I-JEPA's, which config.json must say
    renamed = whole(renamed, "cls_token" if beit else "pos_embed", norm=not beit)
    half = any(re.search(r"pooler\.|classifier\.|lambda_1", name) for name in tensors)
    return replace(renamed, normalisation=HALF if half else None)


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state with the hub's names, as `from_pretrained` loads it with no name missing or unexpected.

    With a layer scale or relative tables it is Beit's (`use_mean_pooling` where there is fc_norm; the bias of the keys,
    which softmax does not see, is left out); with a decoder `ViTMAEForPreTraining`'s; else ViT's, which with a head is
    `ViTForImageClassification`'s and without one fits `ViTModel(add_pooling_layer=False)` and `ViTMAEModel`. The
    config.json needs `layer_norm_eps` 1e-6. Raises ValueError for what the model has no place for, or needs besides.
    """
    state = checkpoint.state
    decoder = "decoder_pred.weight" in state
    beit = any(name.endswith(BEIT_ALONE) for name in state)
    model, names = ("Beit", BEIT) if beit else ("ViTMAE", VIT_MAE) if decoder else ("ViT", VIT)
    check_decoder(checkpoint.path, checkpoint.state)
    require_plain(checkpoint, names, f"transformers' {model}")
    if beit:
        require_norm(checkpoint, "transformers' Beit")
    needed = ["cls_token"] if beit else ["cls_token", "pos_embed", "norm.weight"]
    if missing := [name for name in needed if name not in state]:
        raise ValueError(
            f"{checkpoint.path}: has no {', '.join(missing)}, and transformers' {model} needs it; "
            "write another format, as `own`."
        )
    base = "" if not decoder and "head.weight" not in state else "beit." if beit else "vit."
    restored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        restored |= _theirs(name, tensor, base, beit=beit)
    return restored


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, those of queries, keys and values joined under our names."""
    joined: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if not block or not (qkv := _QKV.fullmatch(block[3])):
            joined[name] = tensor
            continue
        found = parts.setdefault((f"{_block_name(block)}.attn.", qkv[3]), {})
        part = qkv[2] or qkv[1][0]
        if part in found:
            raise ValueError(f"{name} is there a second time under its other spelling; the file mixes two versions.")
        found[part] = tensor
    for (attention, kind), found in parts.items():
        if found.keys() == set("qkv"):
            name = f"{attention}qkv.{kind}"
            joined[name] = join(name, {part: found[part] for part in "qkv"})
        elif kind == "bias" and found.keys() == set("qv"):
            joined |= {f"{attention}q_bias": found["q"], f"{attention}v_bias": found["v"]}
        else:
            absent = [part for part in _PARTS if part[0] not in found]
            raise ValueError(
                f"{attention}qkv.{kind} cannot be joined: {listed(absent)} of its block is not in the file."
            )
    return joined


def _block_name(block: re.Match[str]) -> str:
    return f"{'decoder_blocks' if block[1] else 'blocks'}.{block[2]}"


def _ours(name: str) -> str:
    """Return our name, or an empty one for what the models have not."""
    block = _BLOCK.fullmatch(name)
    stem, table = (block[3], _OURS_IN_BLOCK) if block else (re.sub(rf"^{_BASE}", "", name), _OURS_OUTSIDE)
    before = f"{_block_name(block)}." if block else ""
    if stem in table:
        return f"{before}{table[stem]}"
    stem, _, leaf = stem.rpartition(".")
    return f"{before}{table[stem]}.{leaf}" if stem in table else ""


def _theirs(name: str, tensor: Tensor, base: str, *, beit: bool) -> dict[str, Tensor]:
    """Return one tensor of ours under the hub's names: of three layers where ours is one."""
    blocks, _, rest = name.partition(".")
    if not blocks.endswith("blocks"):
        stem = name if name in _OUTSIDE else name.rpartition(".")[0]
        theirs = f"{_OUTSIDE[stem][0]}{name.removeprefix(stem)}"
        return {theirs if theirs.startswith(("classifier", "decoder")) else f"{base}{theirs}": tensor}
    number, _, rest = rest.partition(".")
    before = f"decoder.decoder_layers.{number}." if blocks == "decoder_blocks" else f"{base}encoder.layer.{number}."
    attention = f"{before}attention.attention."
    if rest in ("attn.q_bias", "attn.v_bias"):
        return {f"{attention}{'query' if rest == 'attn.q_bias' else 'value'}.bias": tensor}
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        parts = zip(_PARTS, tensor.chunk(3), strict=True)
        return {f"{attention}{part}.{kind}": t for part, t in parts if not (beit and (part, kind) == ("key", "bias"))}
    stem = rest if rest in _IN_BLOCK else rest.rpartition(".")[0]
    return {f"{before}{_IN_BLOCK[stem][0]}{rest.removeprefix(stem)}": tensor}


SOURCE = Source(
    name="huggingface",
    title="transformers ViTMAE, ViT, Beit, Dinov2, DINOv3ViT, Aimv2, Siglip and CLIP, of versions 4 (the hub) and 5",
    entries=("model", "state_dict", "module"),
    rename=rename,
    beside=beside,
    restore=restore,
    written_as="safetensors",
)
