"""Whether features collapse: numbers that fall when all images get the same or nearly the same feature.

Axis letters: B images, D width.
"""

from torch import Tensor
from torch.nn.functional import normalize


def feature_spread(feature_BD: Tensor) -> float:
    """Return the standard deviation over images of features of length one, averaged over channels, times sqrt(D).

    1 where they are spread evenly in all directions, 0 where all are the same (SimSiam, arXiv 2011.10566, section 4.1).
    """
    unit_BD = normalize(feature_BD.float(), dim=1)
    return float(unit_BD.std(dim=0, unbiased=False).mean() * unit_BD.shape[1] ** 0.5)


def effective_rank(feature_BD: Tensor) -> float:
    """Return the number of directions that the features use: e to the entropy of the shares of the singular values.

    From 1, all differences between images along one direction, to the smaller of B - 1 and D (Roy and Vetterli 2007).
    0 where there is no difference at all. The mean is taken out first.
    """
    centred_BD = feature_BD.double() - feature_BD.double().mean(dim=0)
    values = centred_BD.svd(compute_uv=False).S
    total = values.sum()
    if total < 1e-12 * (1 + feature_BD.double().norm()):  # rounding alone
        return 0.0
    share = values[values > 0] / total
    return float((-(share * share.log()).sum()).exp())
