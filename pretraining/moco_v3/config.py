"""Options of MoCo v3 pre-training."""

from dataclasses import dataclass
from typing import Annotated, Literal

from backbones.config import ViTConfig
from backbones.weights.normalisation import Normalisation
from classification.config import check_crop_scale
from engine.channels import refuse_channels
from engine.config import BASIC, COMPUTED, FeatureProbes, RunConfig, UnlabelledSplits

Changes = Literal["byol", "crop"]


@dataclass(frozen=True, kw_only=True)
class MoCoConfig(UnlabelledSplits, FeatureProbes):
    """The encoder, its two MLPs, the views and how they are trained (MoCo v3, arXiv 2104.02057, appendix A)."""

    backbone: ViTConfig
    """Encoder; its image_size is the training resolution."""
    run: RunConfig
    """Length, batch, optimiser, schedule. Keys are those of a step's images on all devices, so accumulate > 1 leaves an
    image that many times fewer others to be told from."""
    statistics: Annotated[bool, BASIC] = False
    """Normalise pixels with the mean and std of the training images (pretraining/statistics.py)."""
    normalisation: Annotated[Normalisation | None, COMPUTED] = None
    """What that computed; None is ImageNet's, or what the initial weights state."""
    hidden: int = 4096
    """Width inside projector and predictor."""
    width: int = 256
    """Width of queries and keys."""
    temperature: Annotated[float, BASIC] = 0.2
    """What cosines are divided by."""
    momentum: Annotated[float, BASIC] = 0.99
    """Share of its weights that the momentum encoder keeps at the first step; rises to 1 by half a cosine."""
    freeze_patches: Annotated[bool, BASIC] = True
    """Leave the patch projection at its random start."""
    changes: Annotated[Changes, BASIC] = "byol"
    """What the two views of an image differ in: BYOL's crop, colours, blur and solarisation, or the `crop` (and flip)
    alone, which is the augmentation that MAE does well with (its section 4.1, on table 1e)."""
    crop_scale: Annotated[tuple[float, float], BASIC] = (0.08, 1.0)
    """Share of the image's area that a view takes."""
    blur: tuple[float, float] = (0.1, 2.0)
    """Least and largest radius of the blur in pixels; MoCo v3's are for 224 px."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no contrast."""
        check_crop_scale(self.crop_scale)
        refuse_channels(self.backbone.in_chans, "MoCo v3, whose views differ in colour,")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; it must be at least 0 and below 1 (MoCo v3's is 0.99).")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0 (MoCo v3's is 0.2).")
        if self.run.batch_size // self.run.accumulate < 2:
            raise ValueError(
                f"batch_size {self.run.batch_size} with accumulate {self.run.accumulate} leaves one image at a time; "
                "an image has to be told from another."
            )
