"""Position tables: MAE's layout by hand, and resampling that keeps what must be kept."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.position import resize_position, sincos_table

SIDES = st.integers(min_value=1, max_value=30)


def test_sincos_row_by_hand() -> None:
    table = sincos_table(8, (2, 3), num_prefix_tokens=1)
    assert table.shape == (1, 7, 8)
    assert table.dtype == torch.float32
    assert table[0, 0].tolist() == [0.0] * 8
    # width 8: two frequencies, 1 and 10000 ** -0.5 = 0.01; the last patch stands in row 1, column 2
    x, y = 2.0, 1.0
    expected = [
        *(math.sin(x), math.sin(x * 0.01), math.cos(x), math.cos(x * 0.01)),
        *(math.sin(y), math.sin(y * 0.01), math.cos(y), math.cos(y * 0.01)),
    ]
    assert table[0, -1].tolist() == pytest.approx(expected, abs=1e-7)  # half a unit in the last place of float32


def test_a_table_is_made_where_and_in_what_another_tensor_is() -> None:
    plain, wide = sincos_table(16, (3, 5), 1), sincos_table(16, (3, 5), 1, like=torch.zeros(1, dtype=torch.float64))
    assert wide.dtype == torch.float64 and torch.equal(wide.float(), plain)
    assert sincos_table(16, (3, 5), 1, like=torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert sincos_table(16, (3, 5), 1, like=torch.zeros(1, device="meta")).device.type == "meta"


def test_first_half_says_the_column() -> None:
    patches = sincos_table(16, (4, 5), num_prefix_tokens=0).reshape(4, 5, 16)
    assert torch.equal(patches[0, :, :8], patches[3, :, :8])  # the same in every row
    assert torch.equal(patches[:, 0, 8:], patches[:, 4, 8:])  # the same in every column
    assert not torch.equal(patches[:, 0, :8], patches[:, 1, :8])


def test_sincos_refuses_a_width() -> None:
    with pytest.raises(ValueError, match="embed_dim 10 is not divisible by 4"):
        sincos_table(10, (2, 2), num_prefix_tokens=0)


def test_same_grid_is_the_same_table() -> None:
    table = torch.randn(1, 1 + 6, 4)
    assert torch.equal(resize_position(table, (2, 3), (2, 3), num_prefix_tokens=1), table)


def test_transposed_grid_is_resampled() -> None:
    # as many rows, another shape: a check of the row count alone would take it for the same grid
    table = torch.randn(1, 6, 4)
    assert not torch.equal(resize_position(table, (2, 3), (3, 2), num_prefix_tokens=0), table)


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_equals_bicubic_interpolation(prefix: int) -> None:
    table = torch.randn(1, prefix + 4 * 6, 8)
    image = table[:, prefix:].reshape(1, 4, 6, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(image, size=(7, 5), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    resized = resize_position(table, (4, 6), (7, 5), prefix)
    assert torch.equal(resized[:, prefix:], expected.reshape(1, 35, 8))
    assert torch.equal(resized[:, :prefix], table[:, :prefix])


def test_bfloat16_is_resampled_in_float32() -> None:
    table = torch.randn(1, 16, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        resized = resize_position(table, (4, 4), (6, 6), num_prefix_tokens=0)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_position(table.float(), (4, 4), (6, 6), num_prefix_tokens=0).bfloat16())


@settings(deadline=None, max_examples=60)
@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), prefix=st.integers(0, 2))
def test_any_grid(old: tuple[int, int], new: tuple[int, int], prefix: int) -> None:
    table = torch.full((1, prefix + math.prod(old), 4), 0.75)
    table[:, :prefix] = 7.0
    resized = resize_position(table, old, new, prefix)
    assert resized.shape == (1, prefix + math.prod(new), 4)
    assert torch.equal(resized[:, :prefix], table[:, :prefix])
    # bicubic weights sum to 1 up to the rounding of 16 float32 products
    torch.testing.assert_close(resized[:, prefix:], torch.full_like(resized[:, prefix:], 0.75), rtol=0, atol=2e-6)


def test_wrong_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"position table has 17 rows, which is not 1 \+ 4 x 5; name the grid"):
        resize_position(torch.zeros(1, 17, 4), (4, 5), (8, 8), num_prefix_tokens=1)
