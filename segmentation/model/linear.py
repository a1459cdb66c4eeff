"""A linear map on the ViT's features: model nodes only."""

from backbones.weights.normalisation import Normalisation
from segmentation.config import SegmentationConfig
from segmentation.host import ConfigDict
from segmentation.model.linear_head import LinearHead
from segmentation.model.upernet import around_heads, cross_entropy, shared_by_heads


def linear(config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation) -> ConfigDict:
    """Return the config of an EncoderDecoder without a neck, whose head is one linear map of the taps."""
    return ConfigDict(
        **around_heads(config, normalisation),
        decode_head={
            "type": LinearHead.__name__,
            "in_channels": [config.backbone.embed_dim] * len(config.taps),
            "loss_decode": cross_entropy(1.0),
            **shared_by_heads(config, num_classes),
        },
    )
