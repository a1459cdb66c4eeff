"""DINOv2's backbone files (arXiv 2304.07193, 2309.16588, facebookresearch/dinov2).

`dinov2_vit{s,b,l,g}14_pretrain.pth` and, with registers, `dinov2_vit{s,b,l,g}14_reg4_pretrain.pth`: flat, in
timm's names with a mask token. Positions are for 518 pixels; DINOv2 resamples them as DINO does, which differs from
ours as backbones/sources/dino.py says. Of `dinov2_vitg14_*` `mlp.w12` (the gate and what it gates) is our `mlp.fc1`
and `mlp.w3` our `mlp.fc2`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from backbones.sources.architecture import HEADS
from backbones.sources.source import Renamed, Source, rename_each, whole
from backbones.sources.timm import OURS

DROP = ((r"mask_token", "DINOv2's token for masked patches"),)


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return DINOv2's tensors in our names.

    Raises ValueError for a name that its ViT-S, B and L do not have, and for one absent that they have.
    """
    renamed = rename_each(tensors, _ours, drop=DROP)
    return whole(renamed, "cls_token", "pos_embed", "blocks.0.gamma_1")


def _ours(name: str) -> str:
    """Return our name, or an empty one for what DINOv2's ViT has not."""
    if name == "register_tokens":
        return "reg_token"
    new = re.sub(r"ls([12])\.gamma$", r"gamma_\1", name)
    if found := re.fullmatch(r"(blocks\.\d+\.mlp\.)(w12|w3)(\.\w+)", name):
        new = f"{found[1]}{'fc1' if found[2] == 'w12' else 'fc2'}{found[3]}"
    return (
        new
        if OURS.fullmatch(new) and not new.startswith(("dist_token", "reg_token", "norm_pre", "head", "fc_norm"))
        else ""
    )


SOURCE = Source(
    name="dinov2",
    title="DINOv2: backbone files, with and without registers",
    entries=("teacher", "model", "state_dict"),
    rename=rename,
    heads=HEADS | {1536: 24},
)
