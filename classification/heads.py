"""Classification heads on the ViT's tokens."""

import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn

from backbones.layers import LAYER_NORM_EPS
from backbones.normalise import Normalise
from backbones.vit import ViT
from classification.config import Pooling
from engine.cost import frozen_modules


class Classifier(nn.Module):
    """Pooled tokens, a norm, linear; by default the mean of the patch tokens and a layer norm.

    The default is MAE's fine-tuning head (`--global_pool` of its code). Axis letters: B batch, D width, K classes.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        num_classes: int,
        head_std: float,
        label_smoothing: float,
        mixup: Mixup | None = None,
        pooling: Pooling = "mean",
        norm: nn.Module | None = None,
        normalise: Normalise | None = None,
    ) -> None:
        """`backbone` has no final norm of its own where `norm` is the default, a layer norm on the pooled tokens.

        `mixup` replaces the smoothing of the loss. Without `normalise` images are given normalised.
        """
        super().__init__()
        self.normalise = normalise or nn.Identity()
        width = backbone.architecture.embed_dim
        self.backbone = backbone
        self.pooling = pooling
        self.fc_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS) if norm is None else norm
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
            image_BCHW, target_BK = self.mixup(self.normalise(image_BCHW), label_B)
            logits_BK = self.logits(image_BCHW).float()
            return {"cross_entropy": F.cross_entropy(logits_BK, target_BK)}
        logits_BK = self.logits(image_BCHW).float()
        return {"cross_entropy": F.cross_entropy(logits_BK, label_B, label_smoothing=self.label_smoothing)}

    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Return (B, K) of the bytes of images, or of normalised ones."""
        tokens_BTD = self.backbone(self.normalise(image_BCHW))
        return self.head(self.fc_norm(pool(tokens_BTD, self.backbone.num_prefix_tokens, self.pooling)))

    def train(self, mode: bool = True) -> "Classifier":
        """Put what learns in training mode and leave what is frozen in eval mode: no stochastic depth there."""
        super().train(mode)
        for _, module in frozen_modules(self.backbone):
            module.eval()
        return self


def pool(tokens_BTD: Tensor, num_prefix_tokens: int, pooling: Pooling) -> Tensor:
    """Return (B, D): the class token, or the mean of the tokens after the first `num_prefix_tokens`."""
    return tokens_BTD[:, 0] if pooling == "class" else tokens_BTD[:, num_prefix_tokens:].mean(dim=1)
