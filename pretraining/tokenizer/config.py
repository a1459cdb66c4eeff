"""Options of the discrete VAE that makes BEiT's tokens."""

from dataclasses import dataclass
from typing import Annotated

from classification.config import check_crop_scale
from engine.config import BASIC, RunConfig, UnlabelledSplits


def check_downsampling(downsampling: int) -> int:
    """Return the number of halvings. Raises ValueError for what is no power of two from 2 on."""
    if downsampling < 2 or downsampling & (downsampling - 1):
        raise ValueError(f"downsampling is {downsampling}; it must be 2, 4, 8 or another power of two.")
    return downsampling.bit_length() - 1


def check_size(size: tuple[int, int], downsampling: int) -> None:
    """Raise ValueError where an image of `size` pixels (height, width) has no whole number of tokens."""
    if any(side < downsampling or side % downsampling for side in size):
        nearest = tuple(max(1, round(side / downsampling)) * downsampling for side in size)
        raise ValueError(
            f"an image of {size[0]} x {size[1]} pixels is no multiple of the {downsampling} pixels of a token; the "
            f"nearest is {nearest[0]} x {nearest[1]}."
        )


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(UnlabelledSplits):
    """The tokenizer and how it is trained (DALL-E, arXiv 2102.12092, section 2.1 and appendix A)."""

    run: RunConfig
    """Length, batch, optimiser, schedule."""
    image_size: tuple[int, int] = (112, 112)
    """Height and width in pixels of the training images; the tokenizer takes other multiples of a token too."""
    vocabulary: Annotated[int, BASIC] = 8192
    """Tokens of the codebook."""
    downsampling: int = 8
    """Side of a token in pixels, a power of two."""
    code_dim: int = 128
    """Width of a vector of the codebook."""
    width: int = 128
    """Channels of encoder and decoder."""
    kl_weight: float = 1e-4
    """Weight of the divergence of each place's distribution from the uniform one, in nats; DALL-E's 6.6 weighs sums
    over an image against another likelihood."""
    temperatures: tuple[float, float] = (1.0, 1 / 16)
    """Of the Gumbel-softmax, at the start and after `anneal`."""
    anneal: float = 0.75
    """Share of the run over which the temperature falls, by half a cosine."""
    crop_scale: Annotated[tuple[float, float], BASIC] = (0.2, 1.0)
    """Share of the image's area that RandomResizedCrop takes."""
    flip: Annotated[bool, BASIC] = True
    """Flip horizontally half of the time."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no tokenizer."""
        check_crop_scale(self.crop_scale)
        for name, least in (("vocabulary", 2), ("code_dim", 1), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        check_downsampling(self.downsampling)
        check_size(self.image_size, self.downsampling)
        first, last = self.temperatures
        if not 0 < last <= first:
            raise ValueError(f"temperatures {self.temperatures} must be above 0, the first the higher.")
        if not 0 < self.anneal <= 1:
            raise ValueError(f"anneal is {self.anneal}; it is a share of the run, above 0 and at most 1.")
        if self.kl_weight < 0:
            raise ValueError(f"kl_weight is {self.kl_weight}; it must not be negative.")
