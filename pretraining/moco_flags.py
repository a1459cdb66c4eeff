"""The command line's part of MoCo v3."""

from dataclasses import dataclass

from engine.launch import TrainArgs
from pretraining.moco_views import Changes


@dataclass(frozen=True, kw_only=True)
class MoCoFlags(TrainArgs):
    """Flags of pre-training by contrast; they carry the names of MoCoConfig's fields."""

    changes: Changes | None = None
    """MoCo v3: in what two views of an image differ: byol is crop, colours, blur, solarisation; crop that alone."""
    momentum: float | None = None
    """MoCo v3: share of its weights that the momentum encoder keeps at the first step."""
    temperature: float | None = None
    """MoCo v3: what cosines are divided by."""
    freeze_patches: bool | None = None
    """MoCo v3: True leaves the patch projection at its random start."""
