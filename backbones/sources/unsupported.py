"""Families of vision transformers that are not read yet, by names that no other file has, for error messages."""

import re
from collections.abc import Iterable

_READ = "MAE, timm's plain ViTs and DeiT, AugReg, BEiT, MoCo v3, DINO, DINOv2 and ViTDet are"
# the first whose pattern is the whole of a name; SigLIP before CLIP, whose layers have the same names in transformers
_FAMILIES = (
    ("SigLIP of transformers", r"(.*\.)?(vision_model\.)?head\.(probe|attention\.in_proj_weight)|logit_bias"),
    ("CLIP of transformers", r"(.*\.)?(pre_layrnorm\.(weight|bias)|embeddings\.class_embedding)"),
    ("CLIP of OpenAI or OpenCLIP", r"(visual\.)?(transformer\.resblocks\..*|ln_pre\.(weight|bias)|class_embedding)"),
    ("SigLIP of OpenCLIP or timm (pooling by attention)", r"(visual\.trunk\.)?attn_pool\..*"),
    ("CLIP of timm (a norm before the first block)", r"(visual\.trunk\.)?norm_pre\.(weight|bias)"),
    ("a SigLIP or CLIP layout of transformers", r"(.*\.)?encoder\.layers\.\d+\.self_attn\.q_proj\.weight"),
)


def unsupported(names: Iterable[str]) -> str | None:
    """Return what to say of a file with these names of tensors, None where it is of no family that is named here."""
    held = list(names)
    for family, pattern in _FAMILIES:
        found = next((name for name in held if re.fullmatch(pattern, name)), None)
        if found is not None:
            return (
                f"is {family} by its tensor {found}. That family is not supported: its ViT computes otherwise than the "
                f"one here. {_READ} (`--init-source`)."
            )
    return None
