"""The backbone alone for detectron2's own trainers.

In a LazyConfig:

    model.backbone = L(vit_backbone)(architecture=L(ViTConfig)(...), weights="mae_pretrain_vit_base.pth", source="mae")

In a yacs config, once this module is imported:

    cfg = get_cfg()
    add_vit_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_mae_transfer_vit"
    cfg.MODEL.MAE_TRANSFER.WEIGHTS, cfg.MODEL.MAE_TRANSFER.SOURCE = "mae_pretrain_vit_base.pth", "mae"

Weights are loaded strictly when the backbone is built; leave `init_checkpoint` and MODEL.WEIGHTS empty.
"""

from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from backbones.config import FAMILY, ViTConfig
from backbones.pyramid import even_out_indices
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from detection.config import Norm, Pyramid
from detection.model.backbone import ViTFPN, ViTPyramid, pyramid_on


def vit_backbone(
    architecture: ViTConfig,
    *,
    weights: str = "",
    source: str = "own",
    drop_path: float = 0.0,
    pyramid: Pyramid = "sfp",
    out_channels: int = 256,
) -> ViTPyramid | ViTFPN:
    """Return the ViT under a pyramid, with the weights of a file of the family `source`, or random ones for none.

    Images are padded to the square that the relative positions are made for. Raises what reading and loading raise.
    """
    vit = ViT(architecture, class_token=False, final_norm=False, drop_path=drop_path)
    start_from(vit, InitialWeights(path=Path(weights), source=source) if weights else None)
    side = max(architecture.relative_size or architecture.image_size)
    norm: Norm = "layer" if pyramid == "sfp" else "batch"
    return pyramid_on(vit, pyramid, out_channels=out_channels, square_pad=side, norm=norm)


def add_vit_config(cfg: CfgNode) -> None:
    """Add MODEL.MAE_TRANSFER with ViTDet-B's values to a config of `get_cfg`."""
    node = CfgNode()
    node.NAME = "vit_base_patch16"  # of backbones.config.FAMILY
    node.IMAGE_SIZE = 1024
    node.POSITION_SIZE = 224
    node.RELATIVE_POSITION = "decomposed"
    node.WINDOW_SIZE = 14  # patches; four evenly spaced blocks attend over the whole image
    node.DROP_PATH = 0.1
    node.PYRAMID = "sfp"
    node.OUT_CHANNELS = 256
    node.WEIGHTS = ""
    node.SOURCE = "own"
    cfg.MODEL.MAE_TRANSFER = node


@BACKBONE_REGISTRY.register()
def build_mae_transfer_vit(cfg: CfgNode, input_shape: ShapeSpec) -> ViTPyramid | ViTFPN:
    """Return the backbone that MODEL.MAE_TRANSFER describes."""
    node = cfg.MODEL.MAE_TRANSFER
    if node.NAME not in FAMILY:
        raise ValueError(f"MODEL.MAE_TRANSFER.NAME is {node.NAME!r}; there are: {', '.join(FAMILY)}.")
    plain = FAMILY[node.NAME]
    architecture = replace(
        plain,
        in_chans=input_shape.channels,
        image_size=(node.POSITION_SIZE, node.POSITION_SIZE),
        relative_position=node.RELATIVE_POSITION,
        relative_size=(node.IMAGE_SIZE, node.IMAGE_SIZE),
        window_size=node.WINDOW_SIZE,
        global_blocks=even_out_indices(plain.depth) if node.WINDOW_SIZE else (),
    )
    return vit_backbone(
        architecture,
        weights=node.WEIGHTS,
        source=node.SOURCE,
        drop_path=node.DROP_PATH,
        pyramid=node.PYRAMID,
        out_channels=node.OUT_CHANNELS,
    )
