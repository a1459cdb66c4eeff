"""Classification heads on the ViT's tokens."""

import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn

from backbones.layers import LAYER_NORM_EPS
from backbones.vit import ViT


class Classifier(nn.Module):
    """Mean of the patch tokens, layer norm, linear: MAE's fine-tuning head (`--global_pool` of its code).

    Axis letters: B batch, K classes.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        num_classes: int,
        head_std: float,
        label_smoothing: float,
        mixup: Mixup | None = None,
    ) -> None:
        """`backbone` has no final norm of its own for fine-tuning; `mixup` replaces the smoothing of the loss."""
        super().__init__()
        width = backbone.architecture.embed_dim
        self.backbone = backbone
        self.fc_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)
        self.label_smoothing = label_smoothing
        self.mixup = mixup

    def forward(self, batch: tuple[Tensor, Tensor, list[str]]) -> dict[str, Tensor]:
        """Return {"cross_entropy": scalar} of (images, labels, ids); mixup draws from NumPy's global generator."""
        image_BCHW, label_B, _ = batch
        if self.mixup is not None:
            if len(label_B) % 2:
                raise ValueError(
                    f"a micro-batch of {len(label_B)} images cannot be mixed in pairs; make batch_size / accumulate / "
                    "processes even, or set mixup and cutmix to 0."
                )
            image_BCHW, target_BK = self.mixup(image_BCHW, label_B)
            logits_BK = self.logits(image_BCHW).float()
            return {"cross_entropy": F.cross_entropy(logits_BK, target_BK)}
        logits_BK = self.logits(image_BCHW).float()
        return {"cross_entropy": F.cross_entropy(logits_BK, label_B, label_smoothing=self.label_smoothing)}

    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Return (B, K)."""
        tokens_BTD = self.backbone(image_BCHW)
        return self.head(self.fc_norm(tokens_BTD[:, self.backbone.prefix :].mean(dim=1)))
