"""Mean and std that pixels are normalised with."""

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Normalisation:
    """What the pixels (0 to 1, RGB, or each of as many channels) were normalised with when the weights were trained."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Raise ValueError where pixels cannot be normalised with these: a file may hold anything."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            if not values or len(numbers) < len(values) or not all(-math.inf < v < math.inf for v in numbers):
                raise ValueError(f"normalisation has a {name} of {values}; it must be finite numbers, one per channel.")
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"normalisation has {len(self.mean)} means and {len(self.std)} stds; each channel needs both."
            )
        if min(self.std) <= 0:
            raise ValueError(f"normalisation has a std of {self.std}; pixels are divided by it, so it must be above 0.")

    def spread(self, channels: int) -> "Normalisation":
        """The mean of the constants for each of `channels`: where a channel is no colour, nothing better is known."""
        count = len(self.mean)
        return Normalisation((sum(self.mean) / count,) * channels, (sum(self.std) / count,) * channels)

    def check_channels(self, path: Path, channels: int) -> None:
        """Raise ValueError, for the weights in `path`, where there are not as many constants as channels."""
        if len(self.mean) != channels:
            raise ValueError(
                f"{path}: the weights are for images of {channels} channels, and the normalisation has constants for "
                f"{len(self.mean)}; give one mean and std per channel."
            )


IMAGENET = Normalisation()
OPENAI_CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # Inception's: AugReg, BEiT's ImageNet-22K weights
# DINOv3's of satellites' images (facebookresearch/dinov3, README)
SAT_493M = Normalisation((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
ZERO_TO_ONE = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
