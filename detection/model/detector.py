"""detectron2's R-CNN as the training loop calls it: without a trainer, in any precision, masks shared by proposals.

Axis letters: N objects, M places that each point at one of them, H x W pixels.
"""

from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn


class Detector(GeneralizedRCNN):
    """GeneralizedRCNN that runs outside of detectron2's trainer, with losses and box coding in float32."""

    def __init__(self, **parts: Any) -> None:
        """Take the keyword arguments of GeneralizedRCNN."""
        super().__init__(**parts)
        predictor = self.roi_heads.box_predictor
        stages = list(predictor) if isinstance(predictor, nn.ModuleList) else [predictor]  # several in a cascade
        heads = [self.proposal_generator.rpn_head, *stages]
        if self.roi_heads.mask_on:
            heads.append(self.roi_heads.mask_head.predictor)
        for head in heads:
            # scores in bfloat16 have 8 bits, so that detections tie, and autocast on CPU leaves losses in it
            head.register_forward_hook(_float32_outputs)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Return named losses in training, a list of {"instances": Instances} in evaluation."""
        if self.training:
            batched_inputs = [{**one, "instances": sharing_masks(one["instances"])} for one in batched_inputs]
        with EventStorage():  # detectron2's losses log to the current storage and fail without one
            return super().forward(batched_inputs)


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


def _float32_outputs(_: nn.Module, __: Any, outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(_float32_outputs(_, __, output) for output in outputs)
