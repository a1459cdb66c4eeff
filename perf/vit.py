"""ViT-B/16 at 224 pixels, batch 8, forward and backward, against timm.

python perf/vit.py [--rounds N] [--quick]
"""

import torch
from harness import Step, Switches, run, variants
from timm.models.vision_transformer import vit_base_patch16_224
from torch import Tensor, nn

from backbones.config import FAMILY
from backbones.sources import timm as source
from backbones.vit import ViT


def ours() -> Step:
    vit = ViT(FAMILY["vit_base_patch16"])
    vit.load_state_dict(source.SOURCE.rename(theirs_model().state_dict()).state)
    return step_of(vit)


def theirs() -> Step:
    return step_of(Features(theirs_model()))


class Features(nn.Module):
    """timm's tokens after the final norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.model.forward_features(image_BCHW)


def theirs_model() -> nn.Module:
    torch.manual_seed(0)
    return vit_base_patch16_224(num_classes=0)


def step_of(model: nn.Module) -> Step:
    image = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(1))

    def step(_: Switches) -> float:
        model.zero_grad(set_to_none=True)
        loss = model(image).float().abs().mean()
        loss.backward()
        return loss.item()

    return step


if __name__ == "__main__":
    programs = [*variants("timm", theirs, peer=True), *variants("ours", ours, peer=False)]
    run("ViT-B/16, 224 px, batch 8, forward and backward", programs, rounds=7)
