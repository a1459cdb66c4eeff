"""MoCo v3's files (arXiv 2104.02057, facebookresearch/moco-v3): base encoder, momentum encoder, converted.

A training checkpoint has `module.base_encoder.*` and `module.momentum_encoder.*`, each with a projector as its `head`,
and `module.predictor.*`. The base encoder is what MoCo v3 evaluates and fine-tunes: source `moco_v3`. The momentum
encoder is declared as `moco_v3_momentum`. What `convert_to_deit.py` writes and linear probes hold the base encoder
alone under plain names. The patch projection is random on purpose (section 4.3) and loaded as it is; so is the fixed
position table, whose halves are swapped against MAE's. ViT-S has 12 heads here.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Literal

from torch import Tensor

from backbones.sources.source import Renamed, Source, rename_each, whole
from backbones.sources.timm import PLAIN_BLOCK, require_plain
from backbones.weights.checkpoint import Checkpoint

_WB = r"(weight|bias)"
ENCODER = re.compile(rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.({PLAIN_BLOCK})|norm\.{_WB}")
HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}  # by width: vits.py of moco-v3


def rename(tensors: Mapping[str, Tensor], *, encoder: Literal["base", "momentum"] = "base") -> Renamed:
    """Return the tensors of one encoder in our names.

    Raises ValueError where it is not there or not whole, or a name is unknown.
    """
    wanted, other = f"{encoder}_encoder.", "momentum_encoder" if encoder == "base" else "base_encoder"
    if not any(name.startswith(wanted) for name in tensors):
        if encoder == "momentum" or any(name.startswith(f"{other}.") for name in tensors):
            raise ValueError(
                f"no tensor is named {wanted}*, so the file does not hold the {encoder} encoder; declare "
                f"{'moco_v3' if encoder == 'momentum' else 'moco_v3_momentum'}, or give the training checkpoint."
            )
        wanted = ""
    drop = (
        (rf"{re.escape(wanted)}head\.(\d+\..*|{_WB})", "the projector" if wanted else "a linear probe"),
        (rf"{other}\..*", "the other encoder"),
        (r"predictor\..*", "the predictor"),
    )
    renamed = rename_each(tensors, partial(_ours, prefix=wanted), drop=drop)
    return whole(renamed, "cls_token", "pos_embed")


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as `convert_to_deit.py` writes it, which MoCo v3's and DeiT's fine-tuning read.

    Raises ValueError for what its ViT has no place for. MoCo v3's own code could not load it strictly: the projector is
    gone.
    """
    return restore_encoder(checkpoint, "MoCo v3's ViT", HEADS)


def restore_encoder(checkpoint: Checkpoint, model: str, heads: Mapping[int, int]) -> dict[str, Tensor]:
    """Return the state of a plain ViT with class token and final norm; `heads` are those of the family by width.

    Raises ValueError where `model` has another place, or another number of heads, for the weights.
    """
    require_plain(checkpoint, ENCODER, model)
    if missing := [name for name in ("cls_token", "pos_embed", "norm.weight") if name not in checkpoint.state]:
        raise ValueError(
            f"{checkpoint.path}: has no {', '.join(missing)}, and {model} needs it; write another format, as `own`."
        )
    width, found = checkpoint.architecture.embed_dim, checkpoint.architecture.num_heads
    if found != heads.get(width, found):
        raise ValueError(
            f"{checkpoint.path}: has {found} heads at width {width}, and {model} would compute with {heads[width]}: "
            "the file could not tell it; write another format, as `own`."
        )
    return dict(checkpoint.state)


def _ours(name: str, *, prefix: str) -> str:
    """Return our name, or an empty one for what the encoder has not."""
    if not name.startswith(prefix):
        return ""
    new = name.removeprefix(prefix)
    return new if ENCODER.fullmatch(new) else ""


SOURCE = Source(
    name="moco_v3",
    title="MoCo v3, the base encoder: training checkpoints, linear probes, convert_to_deit.py's files",
    entries=("state_dict", "model"),
    rename=rename,
    restore=restore,
    heads=HEADS,
    written_entry="model",
)
MOMENTUM = Source(
    name="moco_v3_momentum",
    title="MoCo v3, the momentum encoder of a training checkpoint",
    entries=("state_dict",),
    rename=partial(rename, encoder="momentum"),
    heads=HEADS,
)
