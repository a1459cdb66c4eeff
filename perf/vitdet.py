"""ViTDet-B backbone and simple feature pyramid, forward and backward, against detectron2, at 512 and 1024 pixels.

python perf/vitdet.py [--rounds N] [--quick]
"""

from dataclasses import replace
from functools import partial

import torch
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid as TheirPyramid
from detectron2.modeling.backbone.vit import ViT as TheirViT
from harness import Step, Switches, run, variants
from torch import nn

from backbones.config import FAMILY
from backbones.pyramid import SimpleFeaturePyramid
from backbones.sources import detectron2 as source
from backbones.vit import ViT

GLOBAL = (2, 5, 8, 11)
BASE = replace(FAMILY["vit_base_patch16"], relative_position="decomposed", window_size=14, global_blocks=GLOBAL)


def peer(size: int) -> nn.Module:
    torch.manual_seed(0)
    vit = TheirViT(
        img_size=size,
        window_size=14,
        window_block_indexes=[i for i in range(12) if i not in GLOBAL],
        use_rel_pos=True,
        out_feature="last_feat",
    )
    for name, parameter in vit.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.02)
    return TheirPyramid(
        vit, "last_feat", 256, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN", square_pad=size
    )


class Backbone(nn.Module):
    """Our ViT and pyramid."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.vit = ViT(replace(BASE, relative_size=(size, size)), class_token=False, final_norm=False)
        self.pyramid = SimpleFeaturePyramid(768)

    def forward(self, image_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return self.pyramid(self.vit.feature_maps(image_BCHW, [11])[0])


def theirs(size: int) -> Step:
    model = peer(size)
    return step_of(model, lambda image: list(model(image).values()), size)


def ours(size: int) -> Step:
    model, state = Backbone(size), peer(size).state_dict()
    pyramid = {name: tensor for name, tensor in state.items() if name.startswith("simfp")}
    vit = {f"backbone.{name}": tensor for name, tensor in state.items() if name.startswith("net.")}
    model.vit.load_state_dict(source.SOURCE.rename(vit).state)
    model.pyramid.load_state_dict(pyramid)
    return step_of(model, model, size)


def step_of(model: nn.Module, forward, size: int) -> Step:  # type: ignore[no-untyped-def]
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def step(_: Switches) -> float:
        model.zero_grad(set_to_none=True)
        loss = sum(level.float().abs().mean() for level in forward(image))
        loss.backward()
        return loss.item()

    return step


if __name__ == "__main__":
    for size, rounds in ((512, 5), (1024, 2)):
        programs = [
            *variants("detectron2", partial(theirs, size), peer=True),
            *variants("ours", partial(ours, size), peer=False),
        ]
        run(f"ViTDet-B backbone and pyramid, {size} px, batch 1, forward and backward", programs, rounds=rounds)
