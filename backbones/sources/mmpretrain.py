"""mmpretrain's ViTs: backbones, classifiers and pre-training checkpoints of its `VisionTransformer` and `BEiTViT`.

Names are those of its v1.2.0 (models/backbones/vision_transformer.py and beit.py, models/utils/attention.py,
models/selfsup/), which are mmseg's of `MAE` and `BEiT` (backbones/sources/mmseg.py); a `ln2` outside the layers is the
norm of averaged patches, our `fc_norm`. Heads, necks (MAE's decoder among them), index buffers and what else
pre-training keeps beside its backbone (MoCo v3's momentum encoder, BEiT's tokenizer and mask token) are dropped. A file
does not say how its pixels were normalised, so two sources share these names: `mmpretrain` has ImageNet's constants
(its MAE, MoCo v3 and DeiT), `mmpretrain_half` has 0.5 (its ViTs from AugReg, and BEiT); `data_preprocessor` of the
config that made the file tells which to declare. The layer scale of its plain ViTs (`attn.gamma1.weight`) is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from backbones.sources.mmseg import BACKBONE, SCALED, ours
from backbones.sources.source import BEIT_ALONE, POSITIONS, Renamed, Source, rename_each, whole
from backbones.weights.normalisation import HALF

DROP = (
    (r"(.*\.)?relative_position_index", "an index, made anew for every grid"),
    (r"(head|neck)\..*", "a head or neck, of another task"),
    (r"momentum_encoder\..*", "MoCo v3's momentum encoder of backbone and neck"),
    (r"target_generator\..*", "the tokenizer that BEiT learned from"),
    (r"(backbone\.)?mask_token", "stands for masked patches in pre-training alone"),
)


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors of the backbone in our names.

    Raises ValueError for a name that these classes do not have, and without class token or positions.
    """
    renamed = rename_each(tensors, _ours, drop=DROP)
    beit = any(name.endswith(BEIT_ALONE) for name in renamed.state)
    return whole(renamed, "cls_token", POSITIONS if beit else "pos_embed")


def _ours(name: str) -> str:
    """Return our name, or an empty one for what mmpretrain's classes have not."""
    bare = name.removeprefix(BACKBONE)
    if found := re.fullmatch(r"ln2\.(weight|bias)", bare):
        return f"fc_norm.{found[1]}"
    new = "" if ".attn.attn." in bare else ours(bare)  # in_proj is mmseg's VisionTransformer's
    return new if SCALED.fullmatch(new) else ""


SOURCE = Source(
    name="mmpretrain",
    title="mmpretrain's MAE, MoCo v3 and DeiT ViTs, with ImageNet's mean and std: backbones and classifiers",
    entries=("state_dict", "model"),
    rename=rename,
)
HALVES = replace(
    SOURCE,
    name="mmpretrain_half",
    title="mmpretrain's ViTs of AugReg and BEiT, with pixels at mean and std 0.5: backbones and classifiers",
    normalisation=HALF,
)
