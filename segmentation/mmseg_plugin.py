"""Layer-wise decay of our backbone for mmengine's Runner.

mmseg's LearningRateDecayOptimizerConstructor takes a MAETransferViT for its own MAE by the class's name, finds no
block called `backbone.layers.i`, and gives every layer the full learning rate in silence.
"""

from typing import Any

from torch import nn

from backbones.param_groups import param_groups
from segmentation.host import OPTIM_WRAPPER_CONSTRUCTORS, DefaultOptimWrapperConstructor
from segmentation.model.backbone import MAETransferViT


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MAETransferLayerDecay(DefaultOptimWrapperConstructor):
    """The groups of `backbones.param_groups`: `constructor="mmseg.MAETransferLayerDecay"` in an `optim_wrapper`.

    `paramwise_cfg` holds `decay_rate`, each layer's share of the next one's learning rate.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Add the groups of a segmentor. Raises TypeError where its backbone is no MAETransferViT."""
        backbone = module.backbone
        if not isinstance(backbone, MAETransferViT):
            raise TypeError(f"the backbone is a {type(backbone).__name__}; MAETransferLayerDecay knows MAETransferViT.")
        groups = param_groups(
            module,
            weight_decay=self.base_wd,
            layer_decay=self.paramwise_cfg["decay_rate"],
            depth=len(backbone.vit.blocks),
            prefix="backbone.vit.",
        )
        params.extend(
            {
                "params": list(group.params),
                "lr": self.base_lr * group.lr_scale,
                "weight_decay": group.weight_decay,
                "lr_scale": group.lr_scale,
            }
            for group in groups
        )
