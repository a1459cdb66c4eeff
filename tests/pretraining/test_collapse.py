"""What the collapse monitor measures, by hand."""

import math

import numpy as np
import pytest
import torch

from engine.collapse import effective_rank, feature_spread


def test_collapse_by_hand() -> None:
    assert feature_spread(torch.ones(5, 3)) == 0.0
    assert effective_rank(torch.ones(5, 3)) == 0.0
    # the four directions of a plane: each channel has a variance of 1 / 2
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert feature_spread(cross * 7).item() == pytest.approx(1.0)
    assert effective_rank(cross).item() == pytest.approx(2.0)
    line = torch.arange(6.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line).item() == pytest.approx(1.0, abs=1e-6)
    # singular values 2 and 1: shares 2 / 3 and 1 / 3
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert effective_rank(cross * torch.tensor([2.0, 1.0])).item() == pytest.approx(math.exp(entropy))
    spread = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(spread.double().numpy() - spread.double().numpy().mean(axis=0), compute_uv=False)[:4]
    shares = values / values.sum()
    # the fifth singular value is zero but for rounding
    assert effective_rank(spread).item() == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_diverged_features_are_nan(bad: float, shape: tuple[int, int]) -> None:
    """An exception here would hide the training loop's own, which names step and images."""
    features = torch.randn(shape)
    features[1, 2] = bad
    assert effective_rank(features).isnan()
    assert feature_spread(features).isnan()
