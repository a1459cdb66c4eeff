"""Masking: counts and choices by hand, uniform over patches, different for every image."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from pretraining.masking import keep_lowest, kept_count


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    # 256 patches: ViT-H/14 at 224 px; 6.4 rounds down
    [(196, 0.75, 49), (256, 0.75, 64), (64, 0.9, 6), (4, 0.5, 2)],
)
def test_kept_by_hand(patches: int, ratio: float, kept: int) -> None:
    assert kept_count(patches, ratio) == kept


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.0, 1.5])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"mask_ratio {ratio} is outside (0, 1); MAE's is 0.75.")):
        kept_count(16, ratio)


def test_nothing_kept() -> None:
    with pytest.raises(ValueError, match=r"mask_ratio 0\.95 keeps none of 16 patches; lower it"):
        kept_count(16, 0.95)


def test_lowest_noise_by_hand() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.7, 0.6]])
    keep, mask = keep_lowest(noise, 2)
    assert keep.tolist() == [[1, 3], [0, 3]]
    assert mask.tolist() == [[True, False, True, False], [False, True, True, False]]


@settings(deadline=None, max_examples=50)
@given(patches=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_mask_and_kept_are_complements(patches: int, share: float, seed: int) -> None:
    kept = max(1, int(patches * share))
    noise = torch.rand(3, patches, generator=torch.Generator().manual_seed(seed))
    keep, mask = keep_lowest(noise, kept)
    for row in range(3):
        visible = (~mask[row]).nonzero().flatten().tolist()
        assert sorted(keep[row].tolist()) == visible
        assert len(visible) == kept


def test_masks_are_uniform_and_differ() -> None:
    images, patches, kept = 4000, 16, 4
    noise = torch.rand(images, patches, generator=torch.Generator().manual_seed(1))
    keep, mask = keep_lowest(noise, kept)
    counts = torch.bincount(keep.flatten(), minlength=patches).double()
    expected = images * kept / patches
    # drawn without replacement the counts vary less, by (N - K) / (N - 1); put back, this follows chi2 of N - 1
    statistic = float(((counts - expected) ** 2 / expected).sum()) * (patches - 1) / (patches - kept)
    assert chi2.ppf(0.001, patches - 1) < statistic < chi2.ppf(0.999, patches - 1)
    # 4,000 draws of 1,820 possible masks: about 1,618 distinct ones, standard deviation below 20
    distinct = len(torch.unique(mask, dim=0))
    assert distinct == pytest.approx(1820 * (1 - (1 - 1 / 1820) ** images), abs=80)
