"""Relative position in attention: ViTDet's decomposed vectors and BEiT's table, resized to any grid.

Axis letters: B batch, H heads, T tokens, d width of a head, h x w patches, L distances of an axis, R rows of a table.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import make_interp_spline
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

from backbones.config import Grid

CLASS_ROWS = 3  # class token to patch, patch to class token, class token to itself


def distances(grid: Grid) -> Grid:
    """Return how many distances there are along each axis, -(n - 1) to n - 1."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def table_rows(grid: Grid, *, class_token: bool) -> int:
    """Return the rows of BEiT's table: one for each 2-D distance, and three where there is a class token."""
    rows, columns = distances(grid)
    return rows * columns + CLASS_ROWS * class_token


def resize_vectors(vectors_Ld: Tensor, count: int) -> Tensor:
    """Return decomposed vectors for `count` distances (linear, in float32), as detectron2's `get_rel_pos`."""
    if vectors_Ld.shape[0] == count:
        return vectors_Ld
    with torch.autocast(vectors_Ld.device.type, enabled=False):
        resized = F.interpolate(vectors_Ld.float().T[None], size=count, mode="linear")
    return resized[0].T.to(vectors_Ld.dtype)


def resize_table(table_RH: Tensor, old: Grid, new: Grid, *, class_token: bool) -> Tensor:
    """Return BEiT's table for the patches of another grid, at least in float32; the class token's rows are kept.

    Cubic splines along each axis through distances in geometric progression, which keeps short distances where they
    are (BEiT's `run_class_finetuning.py`; a tensor-product spline is what SciPy's removed `interp2d` made of a grid).
    Departures: an axis that keeps its length keeps its values, and grids need not be square, which BEiT refuses.
    Raises ValueError where the rows do not fit `old`.
    """
    if table_RH.shape[0] != table_rows(old, class_token=class_token):
        raise ValueError(
            f"relative position table has {table_RH.shape[0]} rows, which does not fit {old[0]} x {old[1]} patches "
            f"{'with' if class_token else 'without'} a class token "
            f"({table_rows(old, class_token=class_token)} rows); name the grid that it was made for."
        )
    if old == new:
        return table_RH
    kept = CLASS_ROWS if class_token else 0
    patches_RH, class_RH = table_RH.split([table_RH.shape[0] - kept, kept])
    with torch.autocast(table_RH.device.type, enabled=False):
        map_hwH = patches_RH.to(torch.promote_types(table_RH.dtype, torch.float32)).reshape(*distances(old), -1)
        down, across = (_spline(old[axis], new[axis]).to(map_hwH) for axis in (0, 1))
        resized_hwH = torch.einsum("ah,hwH,bw->abH", down, map_hwH, across)
    return torch.cat([resized_hwH.flatten(0, 1).to(table_RH.dtype), class_RH])


def decomposed_bias(q_BHTd: Tensor, rel_pos_h_Ld: Tensor, rel_pos_w_Ld: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return what a query adds to the keys of each row, (B, H, T, h), and of each column, (B, H, T, w).

    The queries are not scaled (MViTv2, arXiv 2112.01526, section 4.1; ViTDet's code).
    """
    h, w = grid
    of_rows_hhd = _by_distance(resize_vectors(rel_pos_h_Ld, 2 * h - 1), h)
    of_columns_wwd = _by_distance(resize_vectors(rel_pos_w_Ld, 2 * w - 1), w)
    q_BHhwd = q_BHTd.unflatten(2, (h, w))
    to_rows = q_BHhwd @ of_rows_hhd.transpose(1, 2)
    to_columns = (q_BHhwd.transpose(2, 3) @ of_columns_wwd.transpose(1, 2)).transpose(2, 3)
    return to_rows.flatten(2, 3), to_columns.flatten(2, 3)


def place_channels(grid: Grid, *, like: Tensor) -> Tensor:
    """Return (T, h + w) with a one in the channel of each patch's row and of its column, zeros elsewhere."""
    h, w = grid
    rows = torch.eye(h, dtype=like.dtype, device=like.device).repeat_interleave(w, dim=0)
    columns = torch.eye(w, dtype=like.dtype, device=like.device).repeat(h, 1)
    return torch.cat([rows, columns], dim=1)


def table_bias(table_RH: Tensor, made_for: Grid, grid: Grid, *, class_token: bool) -> Tensor:
    """Return what every query adds to every key, (H, T, T), the class token first where there is one."""
    table_RH = resize_table(table_RH, made_for, grid, class_token=class_token)
    index_TT = table_index(grid, class_token=class_token, device=table_RH.device)
    # by columns: the pairs of a head lie side by side, in the result and in its gradient
    return table_RH.T.contiguous().index_select(1, index_TT.flatten()).unflatten(1, index_TT.shape)


def table_index(grid: Grid, *, class_token: bool, device: torch.device) -> Tensor:
    """Return the row of the table for each (query, key), (T, T): BEiT's `relative_position_index`."""
    if torch.compiler.is_compiling():  # a compiler traces through a cache, and warns that it does
        return _index(grid, class_token, device)
    return _cached_index(grid, class_token, device, detect_fake_mode())


def _by_distance(vectors_Ld: Tensor, count: int) -> Tensor:
    """Return the vector of each (query, key) pair of places along an axis, (count, count, d)."""
    place = torch.arange(count, device=vectors_Ld.device)
    return vectors_Ld[place[:, None] - place[None, :] + count - 1]


def _index(grid: Grid, class_token: bool, device: torch.device) -> Tensor:
    h, w = grid
    rows, columns = distances(grid)
    y = torch.arange(h, device=device).repeat_interleave(w)
    x = torch.arange(w, device=device).repeat(h)
    patches_NN = (y[:, None] - y[None, :] + h - 1) * columns + (x[:, None] - x[None, :] + w - 1)
    if not class_token:
        return patches_NN
    index_TT = F.pad(patches_NN, (1, 0, 1, 0), value=rows * columns)
    index_TT[1:, 0] = rows * columns + 1
    index_TT[0, 0] = rows * columns + 2
    return index_TT


@lru_cache(maxsize=4)  # the blocks of one forward pass share it; at 64 x 64 patches it has 134 MB
def _cached_index(grid: Grid, class_token: bool, device: torch.device, mode: FakeTensorMode | None) -> Tensor:
    """Return it made once for each `mode`: a fake tensor serves the plan that it was made in alone (engine.memory)."""
    with torch.inference_mode(False):  # a tensor made in inference mode cannot serve training afterwards
        return _index(grid, class_token, device)


# an operator, because a compiler cannot trace SciPy
@torch.library.custom_op("mae_transfer::table_spline", mutates_args=())
def _spline(old: int, new: int) -> Tensor:
    """Return the matrix (2 * new - 1, 2 * old - 1), float64, that carries values at old distances to new ones."""
    return torch.from_numpy(_spline_matrix(old, new).copy())


@_spline.register_fake
def _spline_shape(old: int, new: int) -> Tensor:
    return torch.empty(2 * new - 1, 2 * old - 1, dtype=torch.float64, device="cpu")


@lru_cache(maxsize=64)
def _spline_matrix(old: int, new: int) -> np.ndarray:
    """Return the matrix of `_spline`.

    Old distances stand at 1, 1 + q, 1 + q + q^2, ... new patches, the furthest at the new furthest; q is searched from
    1.01 to 1.5 as in BEiT's code, and what lies further takes the value of the furthest.
    """
    if old == 1:
        return np.ones((2 * new - 1, 1))
    if old == new:
        return np.eye(2 * old - 1)
    q, low, high = 1.01, 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if sum(q**i for i in range(old - 1)) > new - 1 else (q, high)
    ahead = np.cumsum([q**i for i in range(old - 1)])
    at = np.concatenate([-ahead[::-1], [0.0], ahead])
    wanted = np.arange(-(new - 1), new).clip(at[0], at[-1])
    spline = make_interp_spline(at, np.eye(len(at)), k=3 if len(at) > 3 else 1)  # a cubic needs four points
    return spline(wanted)
