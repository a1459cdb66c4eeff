"""Whether features collapse: numbers that fall when all images get the same or nearly the same feature.

Axis letters: B images, D width.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def feature_spread(feature_BD: Tensor) -> Tensor:
    """Return the standard deviation over images of features of length one, averaged over channels, times sqrt(D).

    1 where they are spread evenly in all directions, 0 where all are the same (SimSiam, arXiv 2011.10566, section 4.1).
    """
    unit_BD = normalize(feature_BD.detach().float(), dim=1)
    return unit_BD.std(dim=0, unbiased=False).mean() * unit_BD.shape[1] ** 0.5


def effective_rank(feature_BD: Tensor) -> Tensor:
    """Return the number of directions that the features use: e to the entropy of the shares of the singular values.

    From 1, all differences between images along one direction, to the smaller of B - 1 and D (Roy and Vetterli 2007).
    0 where there is no difference at all, NaN where a feature is not finite. The mean is taken out first.
    """
    with torch.autocast(feature_BD.device.type, enabled=False):
        feature_BD = feature_BD.detach().double()
        centred_BD = feature_BD - feature_BD.mean(dim=0)
        # the smaller of the two Gram matrices has the same singular values, squared
        wide = centred_BD.shape[0] < centred_BD.shape[1]
        gram = centred_BD @ centred_BD.T if wide else centred_BD.T @ centred_BD
        # of NaN the solver raises, and the training loop could not say which images diverged at which step
        values = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0)).clamp_min(0).sqrt()
        total = values.sum()
        share = values / total.clamp_min(1e-300)
        rank = (-torch.xlogy(share, share).sum()).exp()
        rounding = 1e-12 * (1 + feature_BD.norm())
        rank = torch.where(total > rounding, rank, torch.zeros_like(rank))
        return torch.where(feature_BD.isfinite().all(), rank, torch.full_like(rank, torch.nan))
