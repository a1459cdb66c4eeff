"""Masking: counts and choices by hand, uniform over patches, different for every image."""

import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from backbones.config import Grid
from pretraining.mae.config import Sampling
from pretraining.mae.masking import draw_noise, keep_lowest, kept_count, regular_order


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


def test_nothing_masked() -> None:
    with pytest.raises(ValueError, match=r"mask_ratio 1e-17 masks none of 16 patches; raise it"):
        kept_count(16, 1e-17)


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


def visible(grid: Grid, ratio: float, sampling: Sampling) -> torch.Tensor:
    """True where a patch stays, (rows, columns)."""
    kept = kept_count(grid[0] * grid[1], ratio)
    noise = draw_noise(grid, kept=kept, sampling=sampling)[None]
    return ~keep_lowest(noise, kept)[1].reshape(grid)


def test_grid_by_hand() -> None:
    assert regular_order((4, 4)).tolist() == [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
    # 75 %: one of every two by two (MAE, table 1f), the same at every draw
    every_second = torch.zeros(14, 14, dtype=torch.bool)
    every_second[::2, ::2] = True
    assert torch.equal(visible((14, 14), 0.75, "grid"), every_second)
    chequered = (torch.arange(4)[:, None] + torch.arange(6)) % 2 == 0
    assert torch.equal(visible((4, 6), 0.5, "grid"), chequered)
    assert visible((4, 4), 0.875, "grid").nonzero().tolist() == [[0, 0], [2, 2]]


def test_blocks_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def corner(grid: Grid, **wanted: object) -> torch.Tensor:
        asked.update(wanted)
        mask = torch.zeros(grid, dtype=torch.bool)
        mask[:3] = True
        return mask

    monkeypatch.setattr("pretraining.mae.masking.block_mask", corner)
    assert visible((4, 4), 0.75, "block").tolist() == [[False] * 4] * 3 + [[True] * 4]
    # BEiT's least area is 16 of 196 patches: 1 of 16
    assert (asked["masked"], asked["smallest"], asked["least_aspect"]) == (12, 1, 0.3)


def test_blocks_hang_together() -> None:
    def seams(mask: torch.Tensor) -> int:
        return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())

    torch.manual_seed(0)
    blocks = sum(seams(visible((14, 14), 0.75, "block")) for _ in range(20)) / 20
    alone = sum(seams(visible((14, 14), 0.75, "random")) for _ in range(20)) / 20
    # 364 neighbours, of which 2 * 0.25 * 0.75 differ at random: 137; rectangles have fewer seams
    assert alone == pytest.approx(137, abs=5)
    assert blocks < 0.6 * alone


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(2, 16),
    columns=st.integers(2, 16),
    ratio=st.floats(0.05, 0.95),
    sampling=st.sampled_from(["random", "block", "grid"]),
)
def test_every_mask_keeps_the_same_number(rows: int, columns: int, ratio: float, sampling: Sampling) -> None:
    patches = rows * columns
    assume(1 <= int(patches * (1 - ratio)) < patches)
    for _ in range(2):
        assert visible((rows, columns), ratio, sampling).sum() == int(patches * (1 - ratio))
