"""Pooling of boxes and masks against detectron2's: same numbers and gradients, without its copies."""

import pytest
import torch
from detectron2.layers import ROIAlign as HostROIAlign
from detectron2.structures import BitMasks, Boxes, Instances

from detection.model.detector import ObjectMasks, sharing_masks
from detection.model.roi_align import ROIAlign, axis_weights

H, W = 24, 40


def boxes(count: int = 60, *, images: int = 2) -> torch.Tensor:
    """Boxes of all kinds in pixels of a map at a quarter: large, thin, partly or wholly outside, of no size, turned."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([200.0, 130.0]) - 20
    size = 120 * torch.rand(count, 2, generator=generator) ** 3
    special = [[0, 0, 160, 96], [-80, -80, -60, -50], [30, 20, 30, 50], [50, 50, 20, 20], [150, 90, 400, 300]]
    special += [[0, 40, 160, 41], [10, 10, 10, 10], [-4, -4, 4, 4], [156, 92, 164, 100], [158, 94, 160, 96]]
    both = torch.cat([torch.cat([corner, corner + size], dim=1), torch.tensor(special).float()])
    return torch.cat([(torch.arange(len(both)) % images)[:, None].float(), both], dim=1)


@pytest.mark.parametrize("points", [0, 1, 3])
@pytest.mark.parametrize("side", [7, 14])
def test_pooling_is_detectron2s(side: int, points: int) -> None:
    torch.manual_seed(0)
    values, gradients = [], []
    start = torch.randn(2, 5, H, W)
    weight = torch.randn(70, 5, side, side)
    for kind in (HostROIAlign, ROIAlign):
        map_BCHW = start.clone().requires_grad_()
        pooled = kind(side, 0.25, points, aligned=True)(map_BCHW, boxes())
        (pooled * weight).sum().backward()
        values.append(pooled)
        gradients.append(map_BCHW.grad)
    assert values[1].shape == (70, 5, side, side) and (values[0].abs() > 0).float().mean() > 0.5
    # float32 sums in another order
    torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_pooling_in_bfloat16() -> None:
    """In float32 with the boxes as they are, and given back in the map's precision."""
    torch.manual_seed(0)
    map_BCHW = torch.randn(2, 3, H, W).bfloat16()
    whole = HostROIAlign(7, 0.25, 0, aligned=True)(map_BCHW.float(), boxes())
    with torch.autocast("cpu", torch.bfloat16):
        pooled = ROIAlign(7, 0.25, 0, aligned=True)(map_BCHW, boxes())
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), whole, rtol=2**-8, atol=1e-6)  # half of the last of 8 bits


def test_without_boxes() -> None:
    pooled = ROIAlign(7, 0.25, 0, aligned=True)(torch.zeros(2, 3, H, W), torch.zeros(0, 5))
    assert pooled.shape == (0, 3, 7, 7)


def test_shares_along_an_axis_by_hand() -> None:
    """A box of 4 cells from the first on, in two pooled cells of two samples: at 0.5 and 1.5, at 2.5 and 3.5."""
    found = axis_weights(torch.tensor([0.0]), torch.tensor([4.0]), cells=2, length=5, points=0)
    assert found.tolist() == [[[0.25, 0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.5, 0.25]]]
    # samples at -0.75 and -0.25 take the edge's value; at -1.25 and beyond there is nothing
    at_edge = axis_weights(torch.tensor([-1.0, -2.5]), torch.tensor([1.0, 1.0]), cells=1, length=3, points=2)
    assert at_edge.tolist() == [[[1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]


def objects() -> Instances:
    torch.manual_seed(0)
    instances = Instances((H, W))
    instances.gt_boxes = Boxes(torch.tensor([[2.0, 2.0, 20.0, 20.0], [5.0, 3.0, 38.0, 22.0], [0.0, 0.0, 9.0, 9.0]]))
    instances.gt_masks = BitMasks(torch.rand(3, H, W) > 0.5)
    return instances


def test_mask_targets_are_detectron2s() -> None:
    index = torch.tensor([1, 1, 0, 1, 0])
    box = torch.tensor([[3.0, 2.0, 30.0, 20.0]]) + torch.arange(5)[:, None]
    kept = torch.tensor([True, False, True, True, False])
    instances = objects()
    theirs = instances.gt_masks[index][kept].crop_and_resize(box[kept], 14)
    shared = sharing_masks(instances).gt_masks
    ours = shared[index][kept]
    assert len(shared) == 3 and len(ours) == 3
    assert torch.equal(ours.crop_and_resize(box[kept], 14), theirs) and 0 < theirs.float().mean() < 1


def test_a_choice_of_masks_copies_none() -> None:
    instances = objects()
    shared = sharing_masks(instances)
    assert isinstance(instances.gt_masks, BitMasks) and isinstance(shared.gt_masks, ObjectMasks)
    assert shared.gt_boxes is instances.gt_boxes
    many = shared.to(torch.device("cpu")).gt_masks[torch.zeros(512, dtype=torch.long)]
    assert len(many) == 512 and many._mask_NHW.data_ptr() == instances.gt_masks.tensor.data_ptr()
    without = Instances((H, W), gt_boxes=instances.gt_boxes)
    assert sharing_masks(without) is without
