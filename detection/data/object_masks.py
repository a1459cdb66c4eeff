"""The masks of an image's objects while many proposals look at them.

Axis letters: N objects, M places that each point at one of them, H x W pixels.
"""

import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks, Instances
from torch import Tensor


class ObjectMasks:
    """A choice of masks for detectron2's training heads, of which an index makes another choice and copies no mask.

    detectron2 gives each of 512 sampled proposals a copy of its object's mask, 134 MB for an image of 512 pixels, and
    then keeps those of the positives. Targets are the same.
    """

    def __init__(self, mask_NHW: Tensor, chosen_M: Tensor | None = None) -> None:
        """Choose every mask where no choice is given."""
        self._mask_NHW = mask_NHW
        self._chosen_M = torch.arange(len(mask_NHW), device=mask_NHW.device) if chosen_M is None else chosen_M

    def __len__(self) -> int:
        return len(self._chosen_M)

    def __getitem__(self, item: Tensor | slice) -> "ObjectMasks":
        return ObjectMasks(self._mask_NHW, self._chosen_M[item])

    def to(self, device: torch.device) -> "ObjectMasks":
        """Return the choice on another device."""
        return ObjectMasks(self._mask_NHW.to(device), self._chosen_M.to(device))

    def crop_and_resize(self, box_M4: Tensor, side: int) -> Tensor:
        """Return what BitMasks.crop_and_resize does: each mask within its box, (M, side, side), bool."""
        used_U, place_M = self._chosen_M.unique(return_inverse=True)
        mask_UHW = self._mask_NHW[used_U].float()
        roi_M5 = torch.cat([place_M[:, None].to(box_M4), box_M4], dim=1).to(mask_UHW.device)
        share_M1ss = ROIAlign((side, side), 1.0, 0, aligned=True)(mask_UHW[:, None], roi_M5)
        return share_M1ss[:, 0] >= 0.5


def sharing_masks(instances: Instances) -> Instances:
    """Return the objects of a training image with their bitmasks, where they have any, made ObjectMasks."""
    fields = instances.get_fields()
    if not isinstance(fields.get("gt_masks"), BitMasks):
        return instances
    return Instances(instances.image_size, **{**fields, "gt_masks": ObjectMasks(fields["gt_masks"].tensor)})
