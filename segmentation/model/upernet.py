"""UPerNet on the ViT, as in mmsegmentation's `configs/mae`: model nodes only."""

from typing import Any

from backbones.weights.normalisation import Normalisation
from engine.config import as_json
from engine.images.arrays import RGB
from engine.training.processes import processes
from engine.training.sync_norm import SyncBatchNorm
from segmentation.config import SegmentationConfig
from segmentation.host import MODELS, ConfigDict
from segmentation.model.preprocessor import PlacedPreprocessor

MODELS.register_module(name="PlacedSyncBN", module=SyncBatchNorm)


def upernet(config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation) -> ConfigDict:
    """Return the config of an EncoderDecoder; plain values alone, so that mmengine can write and read it."""
    head, width = config.head, config.backbone.embed_dim
    shared = shared_by_heads(config, num_classes)
    return ConfigDict(
        **around_heads(config, normalisation),
        neck={
            "type": "Feature2Pyramid",
            "embed_dim": width,
            "rescales": [4, 2, 1, 0.5],
            "norm_cfg": shared["norm_cfg"],
        },
        decode_head={
            "type": "UPerHead",
            "in_channels": [width] * 4,
            "in_index": [0, 1, 2, 3],
            "pool_scales": (1, 2, 3, 6),
            "channels": head.channels,
            "loss_decode": cross_entropy(1.0),
            **shared,
        },
        auxiliary_head={
            "type": "FCNHead",
            "in_channels": width,
            "in_index": 2,
            "channels": head.aux_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": cross_entropy(head.aux_weight),
            **shared,
        },
    )


def around_heads(config: SegmentationConfig, normalisation: Normalisation) -> dict[str, Any]:
    """Return the nodes of an EncoderDecoder that no head changes.

    Images come in BGR, mmseg's order, and reach the ViT in RGB, normalised by `normalisation`. Those of other than
    three channels come in their order, from 0 to 1.
    """
    architecture = config.backbone
    rgb = architecture.in_chans == RGB
    unit = 255 if rgb else 1
    crop = architecture.image_size
    test: dict[str, Any] = {"mode": "whole"}
    padding: dict[str, Any] | None = {"size_divisor": architecture.patch_size}
    if config.slide is not None:
        test = {"mode": "slide", "crop_size": crop, "stride": (config.slide.stride, config.slide.stride)}
        padding = None  # as in mmseg's configs: windows are whole patches anyway
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": f"mmseg.{PlacedPreprocessor.__name__}",
            "mean": [unit * value for value in normalisation.mean],
            "std": [unit * value for value in normalisation.std],
            "bgr_to_rgb": rgb,
            "size": crop,
            "pad_val": 0,
            "seg_pad_val": 255,
            "test_cfg": padding,
        },
        "backbone": {
            "type": "MAETransferViT",
            "architecture": as_json(architecture),
            "out_indices": list(config.out_indices),
            "drop_path": config.drop_path,
            "class_token": config.class_token,
            "frozen": config.freeze_backbone,
        },
        "train_cfg": {},
        "test_cfg": test,
    }


def shared_by_heads(config: SegmentationConfig, num_classes: int) -> dict[str, Any]:
    """Return what every head is told."""
    return {
        "num_classes": num_classes,
        "norm_cfg": {"type": _norm(), "requires_grad": True},
        "align_corners": False,
        "dropout_ratio": config.head.dropout,
    }


def cross_entropy(weight: float) -> dict[str, Any]:
    """Return the loss: averaged over all pixels, ignored ones too, as in mmseg's configs; 0 where all are ignored."""
    return {"type": "CrossEntropyLoss", "avg_non_ignore": False, "loss_weight": weight}


def _norm() -> str:
    """Return the batch norm over all processes."""
    return "BN" if processes() == 1 else "mmseg.PlacedSyncBN"
