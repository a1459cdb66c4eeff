"""Which parameter of a segmentor learns how fast and with which weight decay."""

from torch import nn

from backbones.param_groups import (
    Exempt,
    ParamGroup,
    exempt_vectors,
    exempt_vectors_and_embeddings,
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
        return _last_layer(model, exempt, weight_decay=optim.weight_decay, depth=depth)
    return param_groups(
        model,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay,
        depth=depth,
        prefix="segmentor.backbone.vit.",
        exempt=exempt,
    )


def _last_layer(model: nn.Module, exempt: Exempt, *, weight_decay: float, depth: int) -> list[ParamGroup]:
    """Return the parameters that learn as one layer after the blocks: the decayed ones, then the free ones."""
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = []
    for free in (False, True):
        some = [(name, parameter) for name, parameter in learning if exempt(name, parameter) == free]
        names, parameters = (tuple(items) for items in zip(*some, strict=True))
        decay = 0.0 if free else weight_decay
        groups.append(ParamGroup(layer=depth + 1, lr_scale=1.0, weight_decay=decay, names=names, params=parameters))
    return groups
