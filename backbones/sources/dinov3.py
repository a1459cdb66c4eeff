"""DINOv3's own ViT files (arXiv 2508.10104, facebookresearch/dinov3).

`dinov3_vit{s,b,l}16_pretrain_lvd1689m-*.pth` and with SwiGLU `vits16plus`, `vith16plus` and `vit7b16`. The pixels of
`*_sat493m-*`, of satellites' images, have other constants, which the name alone tells. Flat, with the names of DINOv2
but for `storage_tokens` (our `reg_token`) and `mlp.w1`, `mlp.w2` (the gate and what it gates). There is
no position table, positions are rotary (backbones/rotary.py); norms have an epsilon of 1e-5.

`qkv.bias` has a mask beside it that turns the bias of the keys off: it becomes `q_bias` and `v_bias`, as in timm's
`*_qkvb` and transformers. Periods of the rotary positions, which bfloat16 rounded, are compared and made anew.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from backbones.sources.architecture import HEADS
from backbones.sources.huggingface_towers import DINOV3
from backbones.sources.parts import Place, join_parts
from backbones.sources.source import Renamed, Source, rename_each, whole
from backbones.sources.timm import PLAIN_BLOCK
from backbones.weights.normalisation import SAT_493M

BASE = 100.0
PERIODS = "rope_embed.periods"
DROP = (
    (r"mask_token", "DINOv3's token for masked patches"),
    (r"local_cls_norm\.(weight|bias)", "the norm of class tokens of small crops, which training alone uses"),
    (r"rope_embed\.periods", "periods of the rotary positions, made anew"),
    (r".*\.bias_mask", "the mask that turns the bias of the keys off"),
)
_OURS = re.compile(
    rf"cls_token|reg_token|patch_embed\.proj\.(weight|bias)|blocks\.\d+\.({PLAIN_BLOCK}|gamma_[12]|attn\.[qv]_bias)"
    r"|norm\.(weight|bias)"
)
_BIAS = re.compile(r"(blocks\.\d+\.attn\.)qkv\.bias")
_GATE = re.compile(r"(blocks\.\d+\.mlp\.)w([12])\.(weight|bias)")


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return DINOv3's tensors in our names.

    Raises ValueError for a name that its ViTs do not have, for one absent that they have, for periods that are not of
    a base of 100, and for a mask that leaves keys a bias.
    """
    _check_periods(tensors.get(PERIODS))
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if found := _BIAS.fullmatch(name):
            q, v = _without_keys(name, tensor, tensors.get(f"{name}_mask"))
            plain |= {f"{found[1]}q_bias": q, f"{found[1]}v_bias": v}
        else:
            plain[name] = tensor
    joined, known = join_parts(plain, _gate)
    renamed = rename_each(joined, lambda name: name if name in known else _ours(name), drop=DROP)
    untold = {name: value for name, value in DINOV3.untold.items() if name != "activation"}  # a gate is seen
    return replace(whole(renamed, "cls_token", "reg_token", "blocks.0.gamma_1"), untold=untold)


def _gate(name: str) -> Place | None:
    found = _GATE.fullmatch(name)
    return (f"{found[1]}fc1.{found[3]}", int(found[2]) - 1, 2) if found else None


def beside(renamed: Renamed, path: Path) -> Renamed:
    """Return it with the constants of the pixels where the name says that they are of satellites' images."""
    if "sat493m" not in path.name:
        return renamed
    note = "mean and std of the pixels by the name, which says sat493m"
    return replace(renamed, normalisation=SAT_493M, notes=(*renamed.notes, note))


def _without_keys(name: str, bias: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the bias of queries and of values. Raises ValueError where that of the keys is in use."""
    if bias.ndim != 1 or len(bias) % 3 or (mask is not None and mask.shape != bias.shape):
        shape = None if mask is None else tuple(mask.shape)
        raise ValueError(f"{name} has the shape {tuple(bias.shape)} and its mask {shape}; it is three vectors in one.")
    q, key, v = (bias if mask is None else bias * mask).chunk(3)
    if key.any():  # a turned key's bias is not what softmax does not see
        raise ValueError(f"{name} gives keys a bias, which DINOv3's files turn off; the file is of another model.")
    return q, v


def _check_periods(periods: Tensor | None) -> None:
    """Raise ValueError where rotary positions have other periods than DINOv3's."""
    if periods is None:
        return
    wanted = BASE ** (torch.arange(periods.numel(), dtype=torch.float64) / max(1, periods.numel()))
    if periods.ndim != 1 or not torch.allclose(periods.double(), wanted, rtol=2**-8, atol=0):  # bfloat16's rounding
        raise ValueError(
            f"{PERIODS} are {[round(float(p), 3) for p in periods.flatten()[:4]]}, ..., and DINOv3's are powers of 100 "
            "from 1 up; the file is of another model."
        )


def _ours(name: str) -> str:
    """Return our name, or an empty one for what DINOv3's ViT has not."""
    if name == "storage_tokens":
        return "reg_token"
    new = re.sub(r"ls([12])\.gamma$", r"gamma_\1", name).replace(".mlp.w3.", ".mlp.fc2.")
    return new if _OURS.fullmatch(new) and name != "reg_token" else ""


SOURCE = Source(
    name="dinov3",
    title="DINOv3: its own ViT files",
    entries=("teacher", "model", "state_dict"),
    rename=rename,
    beside=beside,
    heads={**HEADS, **DINOV3.heads},
)
