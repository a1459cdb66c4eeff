"""Recipes made small: what a recipe builds and how it is trained stay as they are; widths, depths, images and rates are
those of all.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from backbones.config import ViTConfig
from classification.config import ClassificationConfig
from detection.config import DetectionConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.spec import TaskSpec, TaskTable
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE
from segmentation.config import SegmentationConfig, SlideConfig

DEPTH, SIDE = 4, 64
TOKEN = 4  # pixels a side of a token


def smaller(config: Any, folder: Path | None) -> Any:
    """Return the configuration made small; what it needs besides the data set, a tokenizer, is written to `folder`.

    Nothing is written where that is None.
    """
    changed: dict[str, Any] = {"run": _run(config.run)}
    if getattr(config, "drop_path", 0.0):
        changed["drop_path"] = 0.1
    if hasattr(config, "no_weight_decay"):
        changed["no_weight_decay"] = "vectors_and_embeddings"
    if not isinstance(config, DVAEConfig):
        changed["backbone"] = small_vit(config.backbone)
    match config:
        case MAEConfig():
            changed |= {"decoder_dim": 24, "decoder_depth": 2, "decoder_heads": 2, "pca_components": 8}
            if config.target == "tokens":
                changed["tokenizer"] = _tokenizer(folder, grid=changed["backbone"].grid)
            if config.target != "pca":
                del changed["pca_components"]
        case BEiTConfig():
            grid = changed["backbone"].grid
            changed |= {
                "tokenizer": _tokenizer(folder, grid=grid),
                "token_size": (TOKEN * grid[0], TOKEN * grid[1]),
                "masked_patches": grid[0] * grid[1] * 2 // 5,
                "min_block": 4,
            }
        case DVAEConfig():
            changed |= {"vocabulary": 16, "code_dim": 8, "width": 8, "image_size": (32, 32)}
        case MoCoConfig():
            changed |= {"hidden": 16, "width": 8}
        case ClassificationConfig():
            changed["tuned_blocks"] = min(config.tuned_blocks, DEPTH)
        case DetectionConfig():
            heads = replace(
                config.heads,
                **{"channels": 16, "box_width": 32, "rpn_samples": 16, "roi_samples": 16},
                **{"pre_nms": (50, 50), "post_nms": (20, 20), "max_detections": 5},
            )
            changed |= {"image_size": SIDE, "heads": heads}
            changed |= {"train_split": "train2017", "val_split": "val2017"}
            if config.position_size is not None:
                changed["position_size"] = SIDE // 2
        case SegmentationConfig():
            changed |= {
                "out_indices": tuple(sorted({_block(b, config.backbone.depth) for b in config.out_indices})),
                "head": replace(config.head, channels=8, aux_channels=8, queries=6, query_blocks=2, points=32),
                "resize": (2 * SIDE, SIDE),
            }
            if len(changed["out_indices"]) < len(config.out_indices):
                changed["out_indices"] = tuple(range(DEPTH))
            if config.slide is not None:
                changed["slide"] = SlideConfig(stride=SIDE * 2 // 3)
        case _:
            raise AssertionError(f"{type(config).__name__}: say how this kind of recipe is made small.")
    return replace(config, **changed)


def distinct(tasks: TaskTable) -> dict[str, tuple[TaskSpec, str]]:
    """Return the recipes of all tasks by `task-recipe`, of those that are the same when made small the first."""
    found: dict[str, tuple[TaskSpec, str]] = {}
    seen: list[Any] = []
    for spec in tasks.values():
        for name, recipe in spec.recipes.items():
            small = spec.name, smaller(recipe(), None)
            if small not in seen:
                seen.append(small)
                found[f"{spec.name}-{name}"] = spec, name
    return found


def small_vit(vit: ViTConfig) -> ViTConfig:
    """Return four blocks on 8 x 8 patches: a head has fewer channels than the image has rows and columns, and more than
    a window, as in ViTDet's images."""
    return replace(
        vit,
        **{"embed_dim": 64, "depth": DEPTH, "num_heads": 8, "patch_size": 8},
        **{"image_size": (SIDE, SIDE), "relative_size": None, "window_size": 3 if vit.window_size else 0},
        global_blocks=(1, 3) if vit.global_blocks else (),  # windows and whole images both
    )


def _block(block: int, depth: int) -> int:
    return (block + 1) * DEPTH // depth - 1 if (block + 1) * DEPTH >= depth else 0


def _run(run: RunConfig) -> RunConfig:
    """Return two steps of four images, evaluated at the end; rates and their schedule are the same for all."""
    optim = OptimConfig(
        **{
            "kind": run.optim.kind,
            "base_lr": 1e-3,
            "base_batch_size": 4,
            "layer_decay": 0.75 if run.optim.layer_decay < 1 else 1.0,
        },
        clip_norm=None if run.optim.clip_norm is None else 1.0,
    )
    return RunConfig(
        **{"length": Duration(2), "batch_size": 4, "optim": optim, "schedule": ScheduleConfig()},
        **{"eval_batch_size": 4, "precision": "32-true", "log_every": 1},
        ema_decay=None if run.ema_decay is None else 0.9,
    )


def _tokenizer(folder: Path | None, *, grid: tuple[int, int]) -> str:
    if folder is None:
        return "tokenizer.safetensors"
    sizes = {"vocabulary": 16, "downsampling": TOKEN, "code_dim": 5, "width": 6}
    path = folder / "tokenizer.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    header = TokenizerHeader(**sizes, image_size=(TOKEN * grid[0], TOKEN * grid[1]))
    write_tokenizer(path, DiscreteVAE(**sizes), header)
    return str(path)
