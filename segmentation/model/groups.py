"""Which parameter of a segmentor learns how fast and with which weight decay."""

from torch import nn

from backbones.param_groups import (
    Exempt,
    ParamGroup,
    exempt_vectors,
    exempt_vectors_and_embeddings,
    head_groups,
    param_groups,
)
from engine.config import OptimConfig
from segmentation.config import SegmentationConfig, WeightDecayFree

EXEMPT: dict[WeightDecayFree, Exempt] = {
    "vectors_and_embeddings": exempt_vectors_and_embeddings,
    "vectors": exempt_vectors,
}


def segmentor_groups(model: nn.Module, config: SegmentationConfig, optim: OptimConfig) -> list[ParamGroup]:
    """Return layer-wise decay over the ViT, neck and heads being the last layer; the head alone on a frozen ViT."""
    exempt, depth = EXEMPT[config.no_weight_decay], config.backbone.depth
    if config.freeze_backbone:
        return head_groups(model, weight_decay=optim.weight_decay, depth=depth, exempt=exempt)
    return param_groups(
        model,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay,
        depth=depth,
        prefix="segmentor.backbone.vit.",
        exempt=exempt,
    )
