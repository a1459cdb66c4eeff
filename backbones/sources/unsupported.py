"""Kinds of networks that are not read, by names that no other file has, for error messages."""

import re
from collections.abc import Iterable

_READ = (
    "MAE, timm's ViTs and DeiT, AugReg, BEiT, MoCo v3, DINO, DINOv2, DINOv3, AIMv2, EVA-02, Perception Encoder, "
    "SigLIP, CLIP, SAM and ViTDet are"
)
_OPENCLIPS = "That layout is not supported; those of timm and transformers are."
_NO_VIT = "Its maps shrink from stage to stage: it is no plain ViT, and not supported."
# the first whose pattern is the whole of a name
_FAMILIES = (
    ("SigLIP of OpenCLIP", r"visual\.trunk\.attn_pool\..*", _OPENCLIPS),
    ("CLIP of OpenCLIP on timm's ViT", r"visual\.trunk\..*", _OPENCLIPS),
    (
        "a Swin Transformer",
        r"(.*\.)?(layers|stages)\.\d+\.blocks\.\d+\.(attn|attention\.self)(\.w_msa)?\.relative_position_bias_table",
        _NO_VIT,
    ),
    ("a Hiera", r"(.*\.)?(blocks\.\d+\.proj|stages\.\d+\.layers\.\d+\.proj)\.weight", _NO_VIT),
    ("a ConvNeXt", r"(.*\.)?stages\.\d+\.((blocks|layers)\.)?\d+\.(conv_dw|dwconv|depthwise_conv)\.weight", _NO_VIT),
)


def unsupported(names: Iterable[str]) -> str | None:
    """Return what to say of a file with these names of tensors, None where it is of no family that is named here."""
    held = list(names)
    for family, pattern, why in _FAMILIES:
        found = next((name for name in held if re.fullmatch(pattern, name)), None)
        if found is not None:
            return f"is {family} by its tensor {found}. {why} {_READ} (`--init-source`)."
    return None
