"""The command line's part of the crop that every method trains on."""

from dataclasses import dataclass

from engine.launch import TrainArgs


@dataclass(frozen=True, kw_only=True)
class CropFlags(TrainArgs):
    """Flags of all methods; they carry the names of fields of their configurations."""

    crop_scale: tuple[float, float] | None = None
    """Least and largest share of the image's area that a training crop takes."""
    flip: bool | None = None
    """All but MoCo v3, which always does: True flips training crops horizontally half of the time."""
