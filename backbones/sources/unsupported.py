"""Layouts of vision transformers that are not read yet, by names that no other file has, for error messages."""

import re
from collections.abc import Iterable

_READ = (
    "MAE, timm's ViTs and DeiT, AugReg, BEiT, MoCo v3, DINO, DINOv2, DINOv3, AIMv2, EVA-02, SigLIP, CLIP and ViTDet are"
)
# the first whose pattern is the whole of a name
_FAMILIES = (
    ("DINOv3 of facebookresearch", r"storage_tokens|rope_embed\.periods"),
    ("SigLIP of OpenCLIP", r"visual\.trunk\.attn_pool\..*"),
    ("CLIP of OpenCLIP on timm's ViT", r"visual\.trunk\..*"),
)


def unsupported(names: Iterable[str]) -> str | None:
    """Return what to say of a file with these names of tensors, None where it is of no family that is named here."""
    held = list(names)
    for family, pattern in _FAMILIES:
        found = next((name for name in held if re.fullmatch(pattern, name)), None)
        if found is not None:
            return (
                f"is {family} by its tensor {found}. That layout is not supported; those of timm "
                f"and transformers are. {_READ} (`--init-source`)."
            )
    return None
