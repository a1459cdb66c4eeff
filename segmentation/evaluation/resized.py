"""Maps of scores, resized: as a whole, or a region of the result from the places that it is made of.

A region equals that part of the whole up to the rounding of float32: it is the same sum of two places along the width
and then along the height, by the same weights. Where PyTorch fuses multiplication and addition (CPUs with AVX2) most
sizes are equal to the bit.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Span = tuple[int, int]  # first place of an axis, and the one behind the last


def resized(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the map at `size` (height, width), bilinear, corners not aligned."""
    if tuple(map_BCHW.shape[2:]) == size:
        return map_BCHW
    return F.interpolate(map_BCHW, size=size, mode="bilinear", align_corners=False)


def needed(span: Span, coarse: int, fine: int) -> Span:
    """Return which of `coarse` places the places `span` of `fine` are made of."""
    if coarse == fine:
        return span
    first, _, _ = _taps((span[0], span[0] + 1), coarse, fine)
    _, last, _ = _taps((span[1] - 1, span[1]), coarse, fine)
    return int(first), int(last) + 1


def resized_region(
    map_BCHW: Tensor, place: tuple[int, int], of: tuple[int, int], size: tuple[int, int], rows: Span, columns: Span
) -> Tensor:
    """Return some rows and columns of a map of `of` pixels resized to `size`, (B, C, rows, columns).

    `map_BCHW` is a part of that map whose first row and column are `place`; it holds all that is `needed`.
    """
    map_BCHW = _along(map_BCHW, 3, place[1], of[1], size[1], columns)
    return _along(map_BCHW, 2, place[0], of[0], size[0], rows)


def _along(map_BCHW: Tensor, axis: int, begin: int, coarse: int, fine: int, span: Span) -> Tensor:
    if coarse == fine:
        return map_BCHW.narrow(axis, span[0] - begin, span[1] - span[0])
    if axis == 3 and span == (0, fine) and map_BCHW.shape[3] == coarse:
        return resized(map_BCHW, (map_BCHW.shape[2], fine))
    lower, upper, share = (values.to(map_BCHW.device) for values in _taps(span, coarse, fine))
    share = share.to(map_BCHW.dtype) if axis == 3 else share.to(map_BCHW.dtype)[:, None]
    far = map_BCHW.index_select(axis, upper - begin).mul_(share)
    return torch.addcmul(far, map_BCHW.index_select(axis, lower - begin), 1 - share)


def _taps(span: Span, coarse: int, fine: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two places of an axis that each place is between, and the share of the second.

    Rounded as PyTorch rounds: the factor and the place are float32.
    """
    factor = (torch.tensor(coarse, dtype=torch.float32) / fine).double()
    place = (factor * (torch.arange(*span, dtype=torch.float64) + 0.5) - 0.5).float().clamp_(min=0)
    lower = place.long().clamp_(max=coarse - 1)
    return lower, (lower + 1).clamp_(max=coarse - 1), place - lower
