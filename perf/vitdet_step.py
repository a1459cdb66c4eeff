"""A training step of ViTDet-B Mask R-CNN (forward, backward, AdamW) at 512 pixels against detectron2's own model.

python perf/vitdet_step.py [--rounds N] [--quick] [--no-memory]

The peer is detectron2's mask_rcnn_vitdet.py as it is published, ours the recipe vitdet_base as our loop runs it. Both
start from the same weights and see the same image with the same objects, one image a step; both draw the same anchors
and proposals. Drop path is off, since the libraries draw it differently. The value is the sum of the losses.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from harness import CPU, Step, run, training_step, variants
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import IMAGENET
from detection.model.backbone import pyramid_on
from detection.model.mask_rcnn import mask_rcnn
from detection.recipes.vitdet import vitdet_base

# by its path: detectron2.model_zoo imports pkg_resources, which Python no longer has
CONFIG = Path(detectron2.__file__).parent / "model_zoo/configs/common/models/mask_rcnn_vitdet.py"
SIDE, CLASSES, OBJECTS, BOXES = 512, 80, 12, 512
VIT = vitdet_base().backbone


def peer(side: int, a: ViTConfig, boxes: int) -> nn.Module:
    """Return detectron2's model with seeded weights, its ViT of the given sizes, its heads on so many sampled boxes."""
    config = LazyConfig.load(str(CONFIG)).model
    windows = [block for block in range(a.depth) if block not in a.global_blocks]
    config.backbone.net.update(img_size=side, drop_path_rate=0.0, window_block_indexes=windows)
    config.backbone.net.update(embed_dim=a.embed_dim, depth=a.depth, num_heads=a.num_heads)
    config.backbone.square_pad = side
    config.roi_heads.batch_size_per_image = boxes
    torch.manual_seed(0)
    model: nn.Module = instantiate(config).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.02)
            elif "objectness" in name and parameter.ndim > 1:
                # scores apart from each other, so that rounding does not choose the proposals
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "cls_score" in name:
                parameter.mul_(0.1)  # and one proposal that differs all the same does not show in the losses
    return model


def theirs(
    side: int = SIDE, images: int = 1, a: ViTConfig = VIT, device: torch.device = CPU, *, boxes: int = BOXES
) -> Step:
    return step_of(peer(side, a, boxes), side, images, device)


def ours(
    side: int = SIDE, images: int = 1, a: ViTConfig = VIT, device: torch.device = CPU, *, boxes: int = BOXES
) -> Step:
    recipe = vitdet_base()
    config = replace(recipe, image_size=side, backbone=a, heads=replace(recipe.heads, roi_samples=boxes))
    vit = ViT(config.architecture, class_token=False, final_norm=False)
    backbone = pyramid_on(vit, config.pyramid, out_channels=config.heads.channels, square_pad=side)
    model = mask_rcnn(backbone, heads=config.heads, num_classes=CLASSES, masks=True, normalisation=IMAGENET)
    state = {renamed(name): tensor for name, tensor in peer(side, a, boxes).state_dict().items()}
    state["backbone.vit.pos_embed"] = state["backbone.vit.pos_embed"][:, 1:]  # theirs has a row for the class token
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return step_of(model.train(), side, images, device)


def renamed(name: str) -> str:
    """Return our name of detectron2's parameter."""
    return name.replace("backbone.net.", "backbone.vit.").replace("backbone.simfp", "backbone.pyramid.simfp")


def step_of(model: nn.Module, side: int, images: int, device: torch.device) -> Step:
    model.to(device)
    batch = [sample(side) for _ in range(images)]

    def loss_of() -> Tensor:
        torch.manual_seed(2)  # of the anchors and proposals that the losses look at
        with EventStorage():
            losses = model(copy.deepcopy(batch))
        return torch.stack([value.float() for value in losses.values()]).sum()

    return training_step(model, loss_of, lr=1e-9)  # every round has the same losses


def sample(side: int) -> dict[str, Any]:
    """Return an image with ellipses of 32 to 400 pixels, as far as they fit, in random places."""
    generator = torch.Generator().manual_seed(1)
    side_N2 = torch.logspace(5, 8.6, OBJECTS, base=2)[:, None] * (
        0.75 + 0.5 * torch.rand(OBJECTS, 2, generator=generator)
    )
    side_N2 = side_N2.clamp(max=side - 8)
    corner_N2 = (torch.rand(OBJECTS, 2, generator=generator) * (side - side_N2)).floor()
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre_N2, radius_N2 = corner_N2 + side_N2 / 2, side_N2 / 2
    across, down = (
        ((place - centre_N2[:, axis, None, None]) / radius_N2[:, axis, None, None]) ** 2
        for axis, place in ((0, x), (1, y))
    )
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.cat([corner_N2, corner_N2 + side_N2], dim=1))
    instances.gt_classes = torch.randint(0, CLASSES, (OBJECTS,), generator=generator)
    instances.gt_masks = BitMasks(across + down < 1)
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances, "height": side, "width": side}


if __name__ == "__main__":
    programs = [*variants("detectron2", theirs, peer=True), *variants("ours", ours, peer=False)]
    run(f"ViTDet-B Mask R-CNN step, {SIDE} px, batch 1", programs, rounds=5)
