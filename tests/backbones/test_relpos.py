"""Relative positions: hand-worked tables, BEiT's resizing by timm's code and by FITPACK, invariants on any grid."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.interpolate
import timm.layers.pos_embed_rel as timm_relpos
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline
from timm.models.beit import gen_relative_position_index
from torch import Tensor

from backbones.config import Grid
from backbones.relative_position import (
    CLASS_ROWS,
    decomposed_bias,
    distances,
    resize_table,
    resize_vectors,
    table_bias,
    table_index,
    table_rows,
)

CPU = torch.device("cpu")
SIDES = st.integers(1, 9)
GRIDS = st.tuples(SIDES, SIDES)


def random_table(grid: Grid, *, class_token: bool, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(table_rows(grid, class_token=class_token), 2, generator=generator, dtype=torch.float64)


def nodes(old: int, new: int) -> np.ndarray:
    """The places of old distances as BEiT's code computes them, in closed form."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q ** (old - 1)) / (1 - q) > new - 1 else (q, high)
    ahead = [sum(q**i for i in range(k)) for k in range(1, old)]
    return np.array([*(-x for x in reversed(ahead)), 0.0, *ahead])


def interp2d(
    x: list[float], y: list[float], z: np.ndarray, kind: str
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """SciPy's `interp2d` on a grid, by the FITPACK routine that it called (`regrid_smth` without smoothing)."""
    assert kind == "cubic"
    spline = RectBivariateSpline(y, x, z, kx=3, ky=3, s=0)
    return lambda wanted_x, wanted_y: spline(np.asarray(wanted_y), np.asarray(wanted_x))


# --- tables: which row serves which pair ----------------------------------------------------------


def test_bias_of_two_patches_by_hand() -> None:
    table_61 = torch.arange(6.0)[:, None]  # distances -1, 0, 1; class to patch, patch to class, class to itself
    bias_133 = table_bias(table_61, (1, 2), (1, 2), class_token=True)
    assert bias_133.tolist() == [[[5, 3, 3], [4, 1, 0], [4, 2, 1]]]


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4), (5, 1)])
def test_index_is_beits(grid: Grid) -> None:
    assert torch.equal(table_index(grid, class_token=True, device=CPU), gen_relative_position_index(grid))
    without = table_index(grid, class_token=False, device=CPU)
    assert torch.equal(without, gen_relative_position_index(grid)[1:, 1:])


def test_rows_that_fit_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"11 rows, .* 2 x 2 patches with a class token \(12 rows\); name the grid"):
        resize_table(torch.zeros(11, 1), (2, 2), (3, 3), class_token=True)


# --- tables: another grid -------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [False, True])
def test_same_grid_is_the_table_itself(class_token: bool) -> None:
    table = random_table((3, 4), class_token=class_token)
    assert resize_table(table, (3, 4), (3, 4), class_token=class_token) is table


def test_growth_and_shrinking_by_hand() -> None:
    # two patches: distances -1, 0, 1 stay where they are, and what is further takes the furthest
    grown = resize_table(torch.tensor([[1.0], [2.0], [4.0]]), (1, 2), (1, 3), class_token=False)
    assert grown[:, 0].tolist() == pytest.approx([1, 1, 2, 4, 4])
    # three patches to two: the short distances are nodes of the spline, the long ones are not asked for
    shrunk = resize_table(torch.tensor([[9.0], [1.0], [2.0], [4.0], [9.0]]), (1, 3), (1, 2), class_token=False)
    assert shrunk[:, 0].tolist() == pytest.approx([1, 2, 4])


@pytest.mark.parametrize(("old", "new"), [((14, 14), (32, 32)), ((4, 4), (9, 9)), ((9, 9), (4, 4)), ((3, 5), (6, 11))])
def test_equals_fitpack_at_the_same_places(old: Grid, new: Grid) -> None:
    table = random_table(old, class_token=True)
    down, across = (nodes(old[axis], new[axis]) for axis in (0, 1))
    made = resize_table(table, old, new, class_token=True)
    wanted = [np.arange(-(n - 1), n) for n in new]
    for head in range(2):
        spline = RectBivariateSpline(down, across, table[:-3, head].reshape(distances(old)).numpy(), s=0)
        # both solve for the same not-a-knot spline in float64, in other bases
        np.testing.assert_allclose(made[:-3, head].reshape(distances(new)).numpy(), spline(*wanted), atol=1e-9)


@pytest.mark.parametrize(("old", "new"), [((14, 14), (24, 24)), ((14, 14), (10, 10)), ((4, 6), (7, 9))])
def test_equals_timm_with_scipy(old: Grid, new: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_relpos, "_USE_SCIPY", True)
    monkeypatch.setattr(scipy.interpolate, "interp2d", interp2d)  # SciPy 1.14 removed it
    table = random_table(old, class_token=True).float()
    shape = (table_rows(new, class_token=True), 2)
    expected = timm_relpos.resize_rel_pos_bias_table(table, new, shape, old_window_size=old)
    # float32 tables of values up to 4, and timm's places are rounded to float32
    torch.testing.assert_close(resize_table(table, old, new, class_token=True), expected, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
def test_timm_without_scipy_is_linear_between_the_same_places() -> None:
    old, new = (14, 14), (24, 24)
    place = torch.arange(-13.0, 14.0)
    smooth = torch.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / 50)  # as trained tables: a hill at distance 0
    table = torch.cat([smooth.reshape(-1, 1), torch.zeros(3, 1)])
    linear = timm_relpos.resize_rel_pos_bias_table(table, new, (table_rows(new, class_token=True), 1))
    made = resize_table(table, old, new, class_token=True)
    # linear interpolation errs by up to step^2 / 8 * curvature: 1.9^2 / 8 * (1 / 25) = 0.018 along each of two axes
    assert 1e-3 < (made - linear).abs().max().item() < 0.036
    assert made[-CLASS_ROWS:].equal(linear[-CLASS_ROWS:])


def test_an_axis_that_keeps_its_length_keeps_its_values() -> None:
    table = random_table((4, 3), class_token=False)
    made = resize_table(table, (4, 3), (4, 7), class_token=False).reshape(7, 13, 2)
    torch.testing.assert_close(made[:, 5:8], table.reshape(7, 5, 2)[:, 1:4])  # distances -1, 0, 1


@given(old=GRIDS, new=GRIDS, class_token=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_invariants_on_any_grid(old: Grid, new: Grid, class_token: bool, seed: int) -> None:
    table = random_table(old, class_token=class_token, seed=seed)
    made = resize_table(table, old, new, class_token=class_token)
    kept = CLASS_ROWS * class_token
    assert made.shape == (table_rows(new, class_token=class_token), 2) and made.dtype == table.dtype
    assert made[len(made) - kept :].equal(table[len(table) - kept :])
    was, now = (
        table[: len(table) - kept].reshape(*distances(old), 2),
        made[: len(made) - kept].reshape(*distances(new), 2),
    )

    def near(map_hw2: Tensor) -> Tensor:  # distances -1, 0, 1 where both grids have them
        near_h, near_w = (min(1, old[axis] - 1, new[axis] - 1) for axis in (0, 1))
        h, w = map_hw2.shape[0] // 2, map_hw2.shape[1] // 2
        return map_hw2[h - near_h : h + near_h + 1, w - near_w : w + near_w + 1]

    # short distances stay where they are; 1e-9: a spline of float64 at its own nodes
    torch.testing.assert_close(near(now), near(was), rtol=0, atol=1e-9)
    # what does not tell left from right, or up from down, goes on not to
    symmetric = was + was.flip(0) + was.flip(1) + was.flip(0, 1)
    spread = resize_table(symmetric.flatten(0, 1), old, new, class_token=False).reshape(*distances(new), 2)
    for axis in (0, 1):
        torch.testing.assert_close(spread, spread.flip(axis), rtol=0, atol=1e-9)
    # a table of one value has it everywhere
    constant = resize_table(torch.full_like(table, 0.5), old, new, class_token=class_token)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.5), rtol=0, atol=1e-9)


@given(made_for=GRIDS, grid=GRIDS)
@settings(max_examples=30, deadline=None)
def test_bias_depends_on_the_distance_alone(made_for: Grid, grid: Grid) -> None:
    bias = table_bias(random_table(made_for, class_token=False), made_for, grid, class_token=False)
    h, w = grid
    map_2hwhw = bias.reshape(2, h, w, h, w)
    assert map_2hwhw[:, 1:, :, 1:, :].equal(map_2hwhw[:, :-1, :, :-1, :])
    assert map_2hwhw[:, :, 1:, :, 1:].equal(map_2hwhw[:, :, :-1, :, :-1])


def test_gradients_of_a_resized_table() -> None:
    table = random_table((2, 3), class_token=True).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: table_bias(t, (2, 3), (3, 2), class_token=True), (table,))


def test_inference_before_training() -> None:
    table = random_table((3, 2), class_token=True)
    with torch.inference_mode():
        expected = table_bias(table, (3, 2), (5, 7), class_token=True)
    made = table_bias(table.requires_grad_(), (3, 2), (5, 7), class_token=True)  # what is cached serves both
    made.sum().backward()
    assert made.equal(expected)
    assert table.grad is not None
    assert table.grad.sum().item() == pytest.approx(36**2 * 2)  # each of 36 x 36 pairs takes one share, for 2 heads


def test_half_precision_is_resized_in_float32() -> None:
    table = random_table((3, 3), class_token=True).bfloat16()
    expected = resize_table(table.float(), (3, 3), (6, 6), class_token=True).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert resize_table(table, (3, 3), (6, 6), class_token=True).equal(expected)


def test_compiles_as_one_graph_at_changing_sizes() -> None:
    table = random_table((3, 3), class_token=True)

    def bias(image_hw: Tensor) -> Tensor:
        return table_bias(table, (3, 3), (image_hw.shape[0], image_hw.shape[1]), class_token=True)

    compiled = torch.compile(bias, backend="eager", fullgraph=True)
    for size in ((3, 3), (5, 4), (6, 8)):
        torch.testing.assert_close(compiled(torch.zeros(size)), bias(torch.zeros(size)))


# --- decomposed -----------------------------------------------------------------------------------


def test_vectors_resize_linearly_between_half_pixels() -> None:
    made = resize_vectors(torch.tensor([[0.0], [2.0], [4.0]]), 5)
    # new place i lies at (i + 1/2) * 3 / 5 - 1/2 of the old: -0.2 and 2.2 are beyond the ends
    assert made[:, 0].tolist() == pytest.approx([0, 0.8, 2, 3.2, 4])
    same = torch.randn(7, 2)
    assert resize_vectors(same, 7) is same


@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (4, 5)])
def test_decomposed_bias_of_each_pair(grid: Grid) -> None:
    h, w = grid
    query = torch.randn(1, 2, h * w, 3, dtype=torch.float64)
    rows, columns = (torch.randn(2 * n - 1, 3, dtype=torch.float64) for n in grid)
    to_rows, to_columns = decomposed_bias(query, rows, columns, grid)
    for token in range(h * w):
        y, x = divmod(token, w)
        for key in range(h):
            expected = query[0, :, token] @ rows[y - key + h - 1]
            torch.testing.assert_close(to_rows[0, :, token, key], expected)
        for key in range(w):
            expected = query[0, :, token] @ columns[x - key + w - 1]
            torch.testing.assert_close(to_columns[0, :, token, key], expected)


def test_decomposed_bias_at_another_grid_resizes_its_vectors() -> None:
    query, vectors = torch.randn(1, 1, 20, 3), torch.randn(5, 3)
    made = decomposed_bias(query, vectors, vectors, (4, 5))
    resized = [F.interpolate(vectors.T[None], size=2 * n - 1, mode="linear")[0].T for n in (4, 5)]
    for one, other in zip(made, decomposed_bias(query, resized[0], resized[1], (4, 5)), strict=True):
        assert one.equal(other)
