"""Windows: their order by hand, their padding, and the way back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.window import partition, unpartition


def test_order_by_hand() -> None:
    numbers = torch.arange(1, 13, dtype=torch.float32).reshape(1, 3, 4, 1)  # 1 2 3 4 / 5 6 7 8 / 9 10 11 12
    windows = partition(numbers, 2, torch.tensor([-1.0]))
    # padded below to four rows; two windows across, two down
    assert windows[..., 0].tolist() == [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, -1, -1], [11, 12, -1, -1]]


def test_images_stay_apart() -> None:
    pair = torch.stack([torch.full((2, 2, 3), 1.0), torch.full((2, 2, 3), 2.0)])
    assert partition(pair, 2, torch.zeros(3))[:, 0, 0].tolist() == [1.0, 2.0]


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    size=st.integers(1, 20),
)
def test_round_trip(batch: int, grid: tuple[int, int], size: int) -> None:
    patches = torch.rand(batch, *grid, 2) + 1.0  # no zeros but those of the padding
    windows = partition(patches, size, torch.zeros(2))
    down, across = -(-grid[0] // size), -(-grid[1] // size)
    assert windows.shape == (batch * down * across, size * size, 2)
    assert int((windows == 0).sum()) == windows.numel() - patches.numel()
    assert torch.equal(unpartition(windows, size, grid), patches)
