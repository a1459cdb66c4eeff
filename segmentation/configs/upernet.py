"""UPerNet on the ViT, as in mmsegmentation's `configs/mae`: model nodes only.

Departures: one plain ViT (their MAE class adds relative position and layer scale), and batch norm per process
where there is nothing to synchronise or SyncBN cannot run (it needs CUDA).
"""

import os
from typing import Any

import torch

from backbones.checkpoint import Normalisation
from engine.config import as_json
from segmentation.config import SegmentationConfig
from segmentation.host import ConfigDict


def upernet(config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation) -> ConfigDict:
    """Return the config of an EncoderDecoder; plain values alone, so that mmengine can write and read it.

    Images come in BGR, mmseg's order, and reach the ViT in RGB, normalised by `normalisation`.
    """
    architecture, head = config.backbone, config.head
    crop, width = architecture.image_size, architecture.embed_dim
    norm = {"type": "SyncBN" if synchronised() else "BN", "requires_grad": True}
    shared = {
        "num_classes": num_classes,
        "norm_cfg": norm,
        "align_corners": False,
        "dropout_ratio": head.dropout,
    }
    # averaged over all pixels, ignored ones too, as in mmseg's published configs; 0 where all are ignored
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": False}
    test: dict[str, Any] = {"mode": "whole"}
    if config.slide is not None:
        test = {"mode": "slide", "crop_size": crop, "stride": (config.slide.stride, config.slide.stride)}
    return ConfigDict(
        type="EncoderDecoder",
        data_preprocessor={
            "type": "mmseg.SegDataPreProcessor",
            "mean": [255 * value for value in normalisation.mean],
            "std": [255 * value for value in normalisation.std],
            "bgr_to_rgb": True,
            "size": crop,
            "pad_val": 0,
            "seg_pad_val": 255,
            "test_cfg": {"size_divisor": architecture.patch_size},
        },
        backbone={
            "type": "MAETransferViT",
            "architecture": as_json(architecture),
            "taps": list(config.taps),
            "drop_path": config.drop_path,
        },
        neck={"type": "Feature2Pyramid", "embed_dim": width, "rescales": [4, 2, 1, 0.5], "norm_cfg": norm},
        decode_head={
            "type": "UPerHead",
            "in_channels": [width] * 4,
            "in_index": [0, 1, 2, 3],
            "pool_scales": (1, 2, 3, 6),
            "channels": head.channels,
            "loss_decode": {**loss, "loss_weight": 1.0},
            **shared,
        },
        auxiliary_head={
            "type": "FCNHead",
            "in_channels": width,
            "in_index": 2,
            "channels": head.aux_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": {**loss, "loss_weight": head.aux_weight},
            **shared,
        },
        train_cfg={},
        test_cfg=test,
    )


def processes() -> int:
    """Processes of this run, as torchrun states them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def synchronised() -> bool:
    """True where batch norm is taken over all processes: several of them, on CUDA."""
    return processes() > 1 and torch.cuda.is_available()
