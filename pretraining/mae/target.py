"""What the decoder predicts of a patch (MAE, section 3.4 and table 1d), and the way back to pixels.

Axis letters: B batch, N patches, P pixels of a patch (p * p * C), T numbers of a target.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

VARIANCE_EPS = 1e-6  # of the official code


@dataclass(frozen=True)
class Statistics:
    """What a prediction is put back with."""

    mean: Tensor
    """(B, N, 1) or broadcast to it."""
    std: Tensor


class PixelTarget(nn.Module):
    """The pixels of a patch, normalised by the patch's own mean and std or as they are."""

    def __init__(self, *, width: int, normalise: bool) -> None:
        """`width` is the number of pixels of a patch, all channels."""
        super().__init__()
        self.width, self.normalise = width, normalise

    def forward(self, patches_BNP: Tensor) -> Tensor:
        """Return the target (B, N, P)."""
        if not self.normalise:
            return patches_BNP
        s = patch_statistics(patches_BNP)
        return (patches_BNP - s.mean) / s.std

    def pixels(self, prediction_BNP: Tensor, statistics: Statistics) -> Tensor:
        """Return predicted pixels (B, N, P); `statistics` are not used where the target is not normalised."""
        return prediction_BNP * statistics.std + statistics.mean if self.normalise else prediction_BNP


class PCATarget(nn.Module):
    """The largest PCA coefficients of a patch; mean and components are buffers, so that a checkpoint holds them."""

    mean: Tensor
    components: Tensor

    def __init__(self, mean_P: Tensor, components_TP: Tensor) -> None:
        """Take what `fit_pca` found."""
        super().__init__()
        self.width, self.normalise = components_TP.shape[0], False
        self.register_buffer("mean", mean_P)
        self.register_buffer("components", components_TP)

    def forward(self, patches_BNP: Tensor) -> Tensor:
        """Return the target (B, N, T)."""
        return (patches_BNP - self.mean) @ self.components.T

    def pixels(self, prediction_BNT: Tensor, statistics: Statistics) -> Tensor:
        """Return the pixels (B, N, P) of predicted coefficients; `statistics` are not used."""
        return prediction_BNT @ self.components + self.mean


@dataclass(frozen=True)
class PCA:
    """The main directions of a set of patches."""

    mean_P: Tensor
    components_TP: Tensor
    """Orthonormal, that of the largest variance first; the largest entry of each is positive."""
    explained: float
    """Share of the variance that they hold."""


def patch_statistics(patches_BNP: Tensor) -> Statistics:
    """Return each patch's mean and std: unbiased, 1e-6 added to the variance, as in the official code."""
    variance = patches_BNP.var(dim=2, keepdim=True)
    return Statistics(patches_BNP.mean(dim=2, keepdim=True), (variance + VARIANCE_EPS).sqrt())


def visible_statistics(patches_BNP: Tensor, mask_BN: Tensor) -> Statistics:
    """Return, for every patch of an image, the average mean and std of its visible patches: nothing masked."""
    s = patch_statistics(patches_BNP)
    visible_BN1 = (~mask_BN)[:, :, None].to(patches_BNP.dtype)
    count = visible_BN1.sum(dim=1, keepdim=True)
    mean, std = ((part * visible_BN1).sum(dim=1, keepdim=True) / count for part in (s.mean, s.std))
    return Statistics(mean, std)


def fit_pca(patches: Iterable[Tensor], components: int) -> PCA:
    """Return the PCA of all rows of the tensors (n, P), accumulated in float64.

    Raises ValueError for more components than a patch has pixels, and for fewer rows than components.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for patch_nP in patches:
        values = patch_nP.double()
        count += values.shape[0]
        total = total + values.sum(dim=0)
        square = square + values.T @ values
    width = total.shape[0] if count else 0
    if not 1 <= components <= width or count <= components:
        raise ValueError(
            f"pca_components is {components}; {count} patches of {width} numbers were found to fit them on, "
            "which must be more than the components, and the components no more than the numbers of a patch."
        )
    mean_P = total / count
    variance, direction = torch.linalg.eigh(square / count - torch.outer(mean_P, mean_P))
    found_TP = direction.T.flip(0)[:components]
    sign_T1 = found_TP.gather(1, found_TP.abs().argmax(dim=1, keepdim=True)).sign()  # eigenvectors have none
    share = variance.flip(0)[:components].sum() / variance.sum()
    return PCA(mean_P.float(), (found_TP * sign_T1).float(), float(share))
