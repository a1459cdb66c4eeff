"""A linear probe of dense features, head and nodes: the ViT's maps side by side, a batch norm, a 1 x 1 convolution.

iBOT's linear segmentation (arXiv 2111.07832, section 4.2.3) with the batch norm that DINOv2 puts before the classifier
(arXiv 2304.07193, section 7.4), which spares a search for the scale of each model's features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backbones.weights.normalisation import Normalisation
from segmentation.config import SegmentationConfig
from segmentation.host import MODELS, BaseDecodeHead, ConfigDict, build_norm_layer
from segmentation.model.upernet import around_heads, cross_entropy, shared_by_heads


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Class scores from maps of one size."""

    def __init__(self, in_channels: Sequence[int], norm_cfg: dict[str, Any], **settings: Any) -> None:
        """Build for maps of `in_channels`; the rest is mmseg's BaseDecodeHead's."""
        width = sum(in_channels)
        super().__init__(
            in_channels=list(in_channels),
            in_index=list(range(len(in_channels))),
            input_transform="multiple_select",
            channels=width,
            norm_cfg=norm_cfg,
            **settings,
        )
        self.norm = build_norm_layer(norm_cfg, width)[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the scores (B, classes, h, w) at the size of the maps."""
        return self.cls_seg(self.norm(torch.cat(self._transform_inputs(inputs), dim=1)))


def linear(config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation) -> ConfigDict:
    """Return the config of an EncoderDecoder without a neck, whose head is one linear map of the ViT's maps."""
    return ConfigDict(
        **around_heads(config, normalisation),
        decode_head={
            "type": LinearHead.__name__,
            "in_channels": [config.backbone.embed_dim] * len(config.out_indices),
            "loss_decode": cross_entropy(1.0),
            **shared_by_heads(config, num_classes),
        },
    )
