"""Our backbone in detectron2's own trainer, from a LazyConfig and from a yacs config, and its weights from a file."""

import copy
from pathlib import Path
from typing import Any

import detectron2
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.normalisation import IMAGENET
from detection.detectron2_plugin import add_vit_config, vit_backbone

CONFIGS = Path(detectron2.__file__).parent / "model_zoo" / "configs"
SIDE, CHANNELS = 64, 16
TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2, "image_size": (SIDE, SIDE)}


def batch() -> list[dict[str, Any]]:
    samples = []
    for seed in range(2):
        instances = Instances((SIDE, SIDE))
        instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 60.0]]))
        instances.gt_classes = torch.tensor([seed])
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        mask[:, 8:60, 8:40] = True
        instances.gt_masks = BitMasks(mask)
        image = torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
        samples.append({"image": image.to(torch.uint8), "instances": instances, "height": SIDE, "width": SIDE})
    return samples


def train(model: nn.Module, vit: nn.Module) -> None:
    """Three steps of detectron2's trainer reach every parameter of the ViT."""
    before = copy.deepcopy(vit.state_dict())
    trainer = SimpleTrainer(model, [batch() for _ in range(3)], torch.optim.AdamW(model.parameters(), lr=1e-3))
    trainer.train(0, 3)
    assert trainer.iter == 3
    assert all(not torch.equal(before[name], value) for name, value in vit.state_dict().items())


@pytest.mark.parametrize("pyramid", ["sfp", "fpn"])
def test_a_lazy_config_names_our_backbone(pyramid: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pretrained = ViT(ViTConfig(**TINY))  # type: ignore[arg-type]
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, pretrained, source="mae", normalisation=IMAGENET)
    config = LazyConfig.load(str(CONFIGS / "common" / "models" / "mask_rcnn_vitdet.py")).model
    architecture = LazyCall(ViTConfig)(**TINY)
    config.backbone = LazyCall(vit_backbone)(
        architecture=architecture, weights=str(path), pyramid=pyramid, out_channels=CHANNELS
    )
    config.proposal_generator.head.in_channels = CHANNELS
    heads = config.roi_heads
    heads.num_classes = 3
    heads.box_head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
    heads.box_head.update(conv_dims=[CHANNELS], fc_dims=[32])
    heads.box_predictor.input_shape = ShapeSpec(channels=32)
    heads.mask_head.input_shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    heads.mask_head.conv_dims = [CHANNELS]
    model = instantiate(config)
    vit = model.backbone.vit
    assert torch.equal(vit.blocks[3].mlp.fc1.weight, pretrained.blocks[3].mlp.fc1.weight)
    train(model, vit)


def test_a_yacs_config_names_our_backbone() -> None:
    cfg = get_cfg()
    add_vit_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "Base-RCNN-FPN.yaml"))
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON = "build_mae_transfer_vit", "cpu", True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 3, 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    node = cfg.MODEL.MAE_TRANSFER
    node.NAME, node.IMAGE_SIZE, node.POSITION_SIZE, node.WINDOW_SIZE = "vit_tiny_patch16", SIDE, 32, 3
    node.OUT_CHANNELS = CHANNELS
    torch.manual_seed(0)
    model = build_model(cfg)
    vit = model.backbone.vit
    assert vit.pos_embed.shape == (1, 4, 192) and vit.blocks[2].attn.rel_pos_h.shape == (7, 64)
    assert [block.window_size for block in vit.blocks][:3] == [3, 3, 0]
    train(model, vit)
    node.NAME = "vit_giant"
    with pytest.raises(ValueError, match=r"MODEL\.MAE_TRANSFER\.NAME is 'vit_giant'; there are: vit_tiny_patch8"):
        build_backbone(cfg)
