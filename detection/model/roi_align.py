"""ROIAlign with boxes in float32, and on a CPU in all threads.

A pooled cell is the mean of bilinear samples (Mask R-CNN, arXiv 1703.06870, section 3), so a sum of map cells, each
weighted by its row's share times its column's. Such sums are an embedding bag over the map's rows of channels, and
their gradient is another one, with the lists the other way round; torchvision goes through them number by number in a
single thread. Only the order of summing differs.

Departure from detectron2, which rounds boxes to the map's precision: in bfloat16 that is to 4 pixels at 1,000.

Axis letters: B images, K boxes, P pooled cells along a side, G sample points of a cell along a side, L map cells along
a side, C channels, H x W map cells, E pairs of a pooled cell and a map cell.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign as HostROIAlign
from torch import Tensor
from torch.autograd.function import once_differentiable


class ROIAlign(HostROIAlign):
    """detectron2's layer; on other devices than a CPU and in what is traced it is torchvision's that runs."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Return (K, C, P, P) from a map (B, C, H, W) and boxes (K, 5): image, then corners in pixels."""
        side = self.output_size if isinstance(self.output_size, int) else self.output_size[0]
        known = self.aligned and self.output_size in (side, (side, side)) and len(rois) > 0
        traced = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
        with torch.autocast(input.device.type, enabled=False):
            map_BCHW, roi_K5 = input.float(), rois.float()
            if input.device.type != "cpu" or traced or not known:
                pooled_KCPP: Tensor = super().forward(map_BCHW, roi_K5)
            else:
                lists = _lists(roi_K5 * _scale(self.spatial_scale), input.shape, side, self.sampling_ratio)
                pooled_KCPP = _Bags.apply(map_BCHW, side, *lists).permute(0, 3, 1, 2)
        return pooled_KCPP.to(input.dtype)


class _Bags(torch.autograd.Function):
    """Sums of map cells by pooled cell. `cell_E` ascends by pooled cell, `first` is where each of those begins."""

    @staticmethod
    def forward(ctx: Any, map_BCHW: Tensor, side: int, cell_E: Tensor, weight_E: Tensor, first: Tensor) -> Tensor:
        ctx.save_for_backward(cell_E, weight_E, first)
        ctx.shape = map_BCHW.shape
        rows_NC = map_BCHW.permute(0, 2, 3, 1).flatten(0, 2)
        pooled = F.embedding_bag(cell_E, rows_NC.contiguous(), first, mode="sum", per_sample_weights=weight_E)
        return pooled.reshape(-1, side, side, rows_NC.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KPPC: Tensor) -> tuple[Tensor | None, ...]:
        cell_E, weight_E, first = ctx.saved_tensors
        B, C, H, W = ctx.shape
        by_cell_E = cell_E.argsort()
        counts = torch.diff(first, append=torch.tensor([len(cell_E)]))
        pooled_E = torch.arange(len(first)).repeat_interleave(counts)
        found = torch.bincount(cell_E, minlength=B * H * W)
        rows_NC = F.embedding_bag(
            pooled_E[by_cell_E],
            gradient_KPPC.flatten(0, 2).contiguous(),
            found.cumsum(0) - found,
            mode="sum",
            per_sample_weights=weight_E[by_cell_E],
        )
        return rows_NC.reshape(B, H, W, C).permute(0, 3, 1, 2), None, None, None, None


def _scale(spatial_scale: float) -> Tensor:
    """Return what makes map cells of pixels, and leaves the number of the image."""
    return torch.tensor([1.0, *[spatial_scale] * 4])


def _lists(roi_K5: Tensor, shape: torch.Size, side: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return map cell and weight of every pair, by pooled cell, and where each pooled cell's pairs begin.

    Corners are in map cells; `points` is G, 0 for as many as there are map cells in a pooled cell.
    """
    _, _, H, W = shape
    left_K, top_K, right_K, bottom_K = (roi_K5[:, 1:] - 0.5).unbind(1)  # a cell's value is that of its centre
    weight_KPH = axis_weights(top_K, bottom_K - top_K, cells=side, length=H, points=points)
    weight_KPW = axis_weights(left_K, right_K - left_K, cells=side, length=W, points=points)
    y_M, weight_y_M, first_y_KP, count_y_KP = _entries(weight_KPH)
    x_M, weight_x_M, first_x_KP, count_x_KP = _entries(weight_KPW)
    count_KPP = count_y_KP[:, :, None] * count_x_KP[:, None, :]
    count = count_KPP.flatten()
    first = count.cumsum(0) - count

    def of_pairs(value_KPP: Tensor) -> Tensor:
        return value_KPP.expand_as(count_KPP).flatten().repeat_interleave(count)

    number_E = torch.arange(int(count.sum())) - first.repeat_interleave(count)
    columns_E = of_pairs(count_x_KP[:, None, :])
    row_E = torch.div(number_E, columns_E, rounding_mode="floor")
    at_y_E = of_pairs(first_y_KP[:, :, None]) + row_E
    at_x_E = of_pairs(first_x_KP[:, None, :]) + number_E - row_E * columns_E
    image_E = of_pairs(roi_K5[:, 0].long()[:, None, None])
    return (image_E * H + y_M[at_y_E]) * W + x_M[at_x_E], weight_y_M[at_y_E] * weight_x_M[at_x_E], first


def axis_weights(start_K: Tensor, size_K: Tensor, *, cells: int, length: int, points: int) -> Tensor:
    """Return the share that each map cell along an axis has in each pooled cell of a box, (K, P, L).

    `start_K` and `size_K` are in map cells, a cell's centre at a whole number. Samples beyond one cell outside of the
    map count as zero, and nearer ones take the value of the edge, as in torchvision.
    """
    bin_K = size_K / cells
    given_K = torch.full_like(bin_K, points) if points else bin_K.ceil()
    G = max(1, int(given_K.max()))
    point_G = torch.arange(G)
    inside_KPG = (point_G < given_K[:, None])[:, None, :]
    step_K1G = ((point_G + 0.5) * bin_K[:, None] / given_K[:, None])[:, None, :]
    at_KPG = (start_K[:, None] + torch.arange(cells) * bin_K[:, None])[:, :, None] + step_K1G
    inside_KPG = inside_KPG & (at_KPG >= -1) & (at_KPG <= length)
    at_KPG = at_KPG.nan_to_num().clamp(0, length - 1)
    low_KPG = at_KPG.floor()
    share_KPG = torch.where(inside_KPG, 1 / given_K[:, None, None], 0.0)
    high_KPG = share_KPG * (at_KPG - low_KPG)
    weight_KPL = torch.zeros(len(start_K), cells, length)
    low = low_KPG.long()
    weight_KPL.scatter_add_(2, low, share_KPG - high_KPG)
    return weight_KPL.scatter_add_(2, (low + 1).clamp(max=length - 1), high_KPG)


def _entries(weight_KPL: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return place and weight of the map cells that count, and for each pooled cell its first of them and how many."""
    used_KPL = weight_KPL != 0
    count_KP = used_KPL.sum(dim=2)
    ends = count_KP.flatten().cumsum(0)
    place_M = used_KPL.nonzero()[:, 2]
    return place_M, weight_KPL[used_KPL], (ends - count_KP.flatten()).reshape(count_KP.shape), count_KP
