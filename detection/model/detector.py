"""detectron2's R-CNN as the training loop calls it: without a trainer, in any precision."""

from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils.events import EventStorage
from torch import nn

from detection.data.object_masks import sharing_masks


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


def _float32_outputs(_: nn.Module, __: Any, outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(_float32_outputs(_, __, output) for output in outputs)
