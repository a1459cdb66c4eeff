"""AugReg and the first ViT weights (arXiv 2106.10270, 2010.11929): Google's `.npz`, and timm's files of them.

The `.npz` has JAX's layout: kernels with the input first, attention split by head, so the number of heads is read and
not concluded. Files in timm's names are those of backbones/sources/timm.py with pixels from -1 to 1; one that its
config.json or its name says was trained with others is refused. Both kinds are written back in timm's names.

Axis letters: D width, H heads, d width of a head, h x w pixels of a patch, C channels.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from backbones.sources.source import Renamed, Source, join, listed, whole
from backbones.sources.timm import complete
from backbones.sources.timm import rename as rename_timm
from backbones.sources.timm import restore as restore_timm
from backbones.sources.timm_config import agreeing
from backbones.weights.normalisation import HALF

_OUTSIDE = {
    "cls": "cls_token",
    "embedding": "patch_embed.proj",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm": "norm",
    "pre_logits": "pre_logits.fc",
    "head": "head",
}
# flax counted the modules of a block in one row: norm 0, attention 1, norm 2, MLP 3
_IN_BLOCK = {
    "LayerNorm_0": "norm1",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_QKV = re.compile(r"MultiHeadDotProductAttention_1/(query|key|value)/(kernel|bias)")


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors of either kind in our names.

    Raises ValueError for a name that its kind does not have, and for one absent that all its files have.
    """
    if not any("/" in name for name in tensors):
        return rename_timm(tensors)
    converted, num_heads = _to_timm(tensors)
    return replace(whole(rename_timm(converted), "cls_token", norm=False), num_heads=num_heads)


def _to_timm(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int | None]:
    """Return JAX's tensors in timm's names and layout, and the number of heads."""
    state: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # of each joined tensor: query, key, value
    heads, unknown = set(), []
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block and (qkv := _QKV.fullmatch(block[2])):
            joined = f"blocks.{int(block[1])}.attn.qkv.{_LEAF[qkv[2]]}"
            heads.add(_axes(name, tensor, 3 if qkv[2] == "kernel" else 2)[-2])
            # kernel (D, H, d) to (H d, D), bias (H, d) to (H d)
            parts.setdefault(joined, {})[qkv[1]] = tensor.flatten(-2).T if qkv[2] == "kernel" else tensor.flatten()
        elif new := _timm_name(name, block):
            state[new] = _timm_layout(name, tensor)
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} names do not belong to a ViT's .npz in JAX's layout: {listed(unknown)}; "
            "hybrids (ResNet stem) and big_vision's later layouts are not read."
        )
    for joined, found in parts.items():
        if absent := {"query", "key", "value"} - found.keys():
            raise ValueError(f"{joined} cannot be joined: {listed(absent)} of its block is not in the file.")
        state[joined] = join(joined, {part: found[part] for part in ("query", "key", "value")})
    if len(heads) > 1:
        raise ValueError(f"the blocks have different numbers of heads: {sorted(heads)}.")
    return state, heads.pop() if heads else None


def _timm_name(name: str, block: re.Match[str] | None) -> str | None:
    """Return timm's name of a tensor that is not query, key or value, None where there is none."""
    stem, table = (block[2], _IN_BLOCK) if block else (name, _OUTSIDE)
    before = f"blocks.{int(block[1])}." if block else ""
    if stem in ("cls", "Transformer/posembed_input/pos_embedding"):
        return table.get(stem)
    stem, _, leaf = stem.rpartition("/")
    return f"{before}{table[stem]}.{_LEAF[leaf]}" if stem in table and leaf in _LEAF else None


def _timm_layout(name: str, tensor: Tensor) -> Tensor:
    if not name.endswith("/kernel"):
        return tensor
    if name == "embedding/kernel":
        _axes(name, tensor, 4)
        return tensor.permute(3, 2, 0, 1)  # (h, w, C, D) to (D, C, h, w)
    if name.endswith("/out/kernel"):
        _axes(name, tensor, 3)
        return tensor.flatten(0, 1).T  # (H, d, D) to (D, H d)
    _axes(name, tensor, 2)
    return tensor.T


def _axes(name: str, tensor: Tensor, count: int) -> torch.Size:
    """Return the shape. Raises ValueError where it has not `count` axes."""
    if tensor.ndim != count:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, and JAX's layout has {count} axes there.")
    return tensor.shape


SOURCE = Source(
    name="augreg",
    title="AugReg and the first ViTs with mean and std 0.5: Google's .npz, timm's files of them",
    entries=("model", "state_dict"),
    rename=rename,
    beside=partial(agreeing, wanted=HALF, other="timm"),
    complete=complete,
    restore=restore_timm,
    written_as="safetensors",
    normalisation=HALF,
)
