"""An MAE with its decoder, and what it reconstructs.

Axis letters: B images, H x W pixels, N patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import located
from mae_transfer.models import Picture, as_image
from pretraining.augment import validation_view
from pretraining.gallery import Decoder, Options, Shown, mask_noise, open_any
from pretraining.mae.config import StatisticsOf
from pretraining.mae.masking import kept_count
from pretraining.mae.model import MaskedAutoencoder
from pretraining.mae.pictures import pasted, pixels


@dataclass(frozen=True)
class Reconstructions:
    """Pictures of reconstructions, (B, H, W, 3) in [0, 1]."""

    image: np.ndarray
    """What the model was given, unmasked: the centre of each picture."""
    masked: np.ndarray
    """Masked patches grey."""
    pasted: np.ndarray
    """Masked patches predicted, visible ones as they are."""
    error: tuple[float, ...]
    """Root mean squared error of the masked pixels of each picture, in the same units."""


@dataclass(frozen=True)
class MAE:
    """An encoder with its decoder, in eval mode."""

    shown: Shown
    model: MaskedAutoencoder

    @classmethod
    def load(
        cls, path: Path, *, source: str, target: str | None, decoder_heads: int, device: str, **declared: Any
    ) -> "MAE":
        """Return the MAE of a run or a file; raises what opening raises, and ValueError where there is no decoder."""
        decoder = Decoder(heads=decoder_heads, target=target)  # type: ignore[arg-type]  # checked where it is used
        there = located(InitialWeights(path=path, source=source, **declared))
        shown = open_any(there, decoder)
        if shown.autoencoder is None:
            raise ValueError(
                f"{path}: has no decoder, so it reconstructs nothing; give the folder of a run of MAE, or a file that "
                "was saved with its decoder."
            )
        return cls(shown, shown.autoencoder.to(device).eval())

    @torch.no_grad()
    def reconstruct(
        self,
        pictures: Sequence[Picture],
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        statistics: StatisticsOf = "true",
    ) -> Reconstructions:
        """Return pictures with that share of their patches masked at random, and what is predicted there.

        `statistics` says whose mean and std a target that is normalised by patch is undone with: those of the `true`
        patch, which the model never saw, or the average ones of the `visible` patches. Raises ValueError for a ratio
        that leaves no patch, UnreadableImageError for a file.
        """
        model, normalisation = self.model, self.shown.normalisation
        a = model.encoder.architecture
        if a.in_chans != 3:
            raise ValueError(f"the model is of images of {a.in_chans} channels, and pictures are read as RGB.")
        view = validation_view(a.image_size, normalisation)
        device = next(model.parameters()).device
        image_BCHW = torch.stack([view(as_image(one)) for one in pictures]).to(device)
        model.kept = kept_count(a.grid[0] * a.grid[1], mask_ratio)
        options = Options(mask_ratio=mask_ratio, seed=seed)
        noise_BN = mask_noise(self.shown, options, "random", len(pictures)).to(device)
        made = pasted(model, image_BCHW, noise_BN, source=statistics)
        image, masked, whole = (
            np.stack([pixels(one, normalisation) for one in x]) for x in (image_BCHW, made.masked, made.pasted)
        )
        hidden_BHW = made.masked.isnan().any(dim=1).cpu().numpy()
        square_BHW3 = (whole - image) ** 2
        error = [float(np.sqrt(one[hidden].mean())) for one, hidden in zip(square_BHW3, hidden_BHW, strict=True)]
        return Reconstructions(image, masked, whole, tuple(error))
