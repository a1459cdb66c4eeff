"""What is said of a file of weights: one declaration for the command line, the records and the readers.

The types carry the words that `--help` says of a flag, whatever a tool calls the flag.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc

BACKBONE_NAME = "backbone.safetensors"
"""What every run that trains a ViT leaves it in (backbones.weights.checkpoint.leave_backbone)."""

# the one table of families: name -> module and object in backbones/sources, which import torch
FAMILIES = {
    "own": "own.SOURCE",
    "mae": "mae.SOURCE",
    "timm": "timm.SOURCE",
    "augreg": "augreg.SOURCE",
    "beit": "beit.SOURCE",
    "moco_v3": "moco_v3.SOURCE",
    "moco_v3_momentum": "moco_v3.MOMENTUM",
    "dino": "dino.SOURCE",
    "dino_student": "dino.STUDENT",
    "dinov2": "dinov2.SOURCE",
    "dinov3": "dinov3.SOURCE",
    "ijepa": "ijepa.SOURCE",
    "huggingface": "huggingface.SOURCE",
    "openclip": "openclip.SOURCE",
    "sam": "sam.SOURCE",
    "detectron2": "detectron2.SOURCE",
    "mmseg": "mmseg.SOURCE",
    "mmpretrain": "mmpretrain.SOURCE",
    "mmpretrain_half": "mmpretrain.HALVES",
}
Family = Annotated[str, Doc(f"Family of the weights file: {', '.join(FAMILIES)}.")]
Heads = Annotated[
    int | None, Doc("Attention heads of the weights, where neither the file nor a published width tells.")
]
TableSize = Annotated[
    tuple[int, int] | None,
    Doc("Height and width in pixels that the position table of the weights was made for, where it is not square."),
]
PixelMean = Annotated[
    tuple[float, ...] | None,
    Doc(
        "Mean of the pixels, from 0 to 1, one number per channel, that the weights were trained with; in place of what "
        "file, config.json or name say, and for a file where none of them does."
    ),
]
PixelStd = Annotated[
    tuple[float, ...] | None, Doc("Std of the pixels that the weights were trained with, as the mean.")
]
TrustPickle = Annotated[
    bool,
    Doc(
        "Read pickles (weights, DALL-E's tokenizer), which can run any code while they are read: for files of a "
        "trusted origin alone."
    ),
]
ResizePatch = Annotated[
    bool, Doc("Resample the patch projection to the patch size of the ViT that is built, as ViTDet does for H/14.")
]
Whose = Annotated[
    Literal["recipe", "file"],
    Doc(
        "Whose ViT is built: the recipe's (tools/probe.py: the one that is named), or that of the weights (width, "
        "depth, patches, layer scale, biases, relative positions) at its image size."
    ),
]

TrustStart = Annotated[
    bool,
    Doc(
        "Read pickles, which can run any code while they are read: the tokenizer of a run, and, of a run of before "
        "whose record lacks the normalisation, what it started from."
    ),
]
# those of SOURCES that can be written
READ_ALONE = (
    "moco_v3_momentum",
    "dino_student",
    "dinov2",
    "dinov3",
    "openclip",
    "sam",
    "mmpretrain",
    "mmpretrain_half",
)
FORMATS = tuple(name for name in FAMILIES if name not in READ_ALONE)
Inflation = Literal["sum", "mean", "repeat"]


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """A file of weights and what the user says of it; nothing of it is guessed."""

    path: Path
    source: Family = "own"
    num_heads: Heads = None
    image_size: TableSize = None
    mean: PixelMean = None
    std: PixelStd = None
    trust_pickle: TrustPickle = False
    resize_patch: ResizePatch = False
    architecture: Whose = "recipe"
    normalisation: dict[str, tuple[float, ...]] | None = None
    """Mean and std of the pixels, where a run's record states them: the file is then not read, since a checkpoint of
    the run takes its place."""

    def options(self) -> dict[str, Any]:
        """Return what a record keeps of the declaration; trust is a matter of the command line alone."""
        names = ("source", "num_heads", "image_size", "resize_patch", "architecture")
        pixels = {name: values for name in ("mean", "std") if (values := getattr(self, name)) is not None}
        return {name: getattr(self, name) for name in names} | pixels


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What becomes of the weights on the way; by default nothing."""

    encoder_only: bool = False
    """Leave a decoder and a head out."""
    resize_to: tuple[int, int] | None = None
    """Make the position tables for this height and width in pixels."""
    patch_size: int | None = None
    """Resample the patch projection to this many pixels (bicubic), as ViTDet does for H/14."""
    in_chans: int | None = None
    """Carry the patch projection to this many channels, by the rule `inflate`."""
    inflate: Inflation | None = None
    """How new channels come from the old ones: sum, mean or repeat."""
