"""DINO's files (arXiv 2104.14294, facebookresearch/dino): backbones, and training checkpoints with two networks.

A backbone file is flat, with our names. A training checkpoint has `teacher` and `student`, with `module.` and
`backbone.` before the names and a projection head. Source `dino` takes the teacher, which is what DINO publishes and
evaluates; `dino_student` the student.

DINO resamples positions by the ratio (n + 0.1) / old; here, as in MAE, to n patches exactly. Of a sin-cos table, whose
values lie from -1 to 1, that moves entries by up to 0.043 from 14 to 32 patches a side (patch 16) and 0.046 from 28 to
64 (patch 8); the worst seen is 0.09, from 28 to 32. At the size of pre-training nothing is resampled.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from backbones.sources.architecture import HEADS
from backbones.sources.moco_v3 import ENCODER, restore_encoder
from backbones.sources.source import Renamed, Source, listed, rename_each, whole
from backbones.weights.checkpoint import Checkpoint

DROP = ((r"head\..*", "DINO's projection head"),)
WRAPPED = "backbone."  # MultiCropWrapper's attribute


def rename(tensors: Mapping[str, Tensor], *, wrapped: bool = False) -> Renamed:
    """Return the tensors in our names; `wrapped` takes the student and refuses the plain names of a backbone file.

    Raises ValueError for a name that DINO's ViT does not have, and for one absent that it always has.
    """
    wanted, other = ("student.", "teacher.") if wrapped else ("teacher.", "student.")
    beside = [name for name in tensors if name.startswith(other)]
    if beside or any(name.startswith(wanted) for name in tensors):  # both in one state, as Lightning saves them
        rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(other)}
        if strange := [name for name in rest if not name.startswith(wanted)] or ([] if rest else beside):
            raise ValueError(f"{len(strange)} of {len(tensors)} names are not of the {wanted[:-1]}: {listed(strange)}.")
        renamed = rename({name.removeprefix(wanted): tensor for name, tensor in rest.items()}, wrapped=wrapped)
        return replace(renamed, dropped=(*renamed.dropped, *(f"{name}: the other network" for name in beside)))
    if wrapped and not any(name.startswith(WRAPPED) for name in tensors):
        raise ValueError(
            f"no tensor is named {WRAPPED}*: a backbone file, which is the teacher's; declare dino, or give the "
            "training checkpoint."
        )
    renamed = rename_each(tensors, _ours, drop=DROP)
    return whole(renamed, "cls_token", "pos_embed")


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as DINO's `VisionTransformer` loads it strictly.

    Raises ValueError for what it has no place for.
    """
    return restore_encoder(checkpoint, "DINO's ViT", HEADS)


def _ours(name: str) -> str:
    """Return our name, or an empty one for what DINO's ViT has not."""
    new = name.removeprefix(WRAPPED)
    return new if ENCODER.fullmatch(new) else ""


SOURCE = Source(
    name="dino",
    title="DINO: backbone files, and the teacher of training checkpoints",
    entries=("teacher", "state_dict"),
    rename=rename,
    restore=restore,
)
STUDENT = Source(
    name="dino_student",
    title="DINO, the student of a training checkpoint",
    entries=("student", "state_dict"),
    rename=partial(rename, wrapped=True),
)
