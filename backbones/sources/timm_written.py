"""timm's config.json beside weights in timm's names, for `timm.create_model("local-dir:FOLDER", pretrained=True)`.

The architecture is a name of timm and the arguments in which these weights differ from it. timm's model of both is
built without memory and compared with the tensors, so that no config is written that would not load.
"""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from backbones.config import FAMILY, ViTConfig
from backbones.sources.huggingface_config import CONFIG
from backbones.sources.source import listed
from backbones.weights.checkpoint import Checkpoint

WEIGHTS = "model.safetensors"  # what timm looks for
PLAIN, DISTILLED = "vit_base_patch16_224", "deit_base_distilled_patch16_224"
SIDE = 224  # pixels, of the models of these names


def model_config(checkpoint: Checkpoint, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return config.json for `state`, the checkpoint's tensors in timm's names.

    Raises ValueError where no plain model of timm has these tensors.
    """
    a = checkpoint.architecture
    name, base = _named(a)
    labels = state["head.weight"].shape[0] if "head.weight" in state else 0
    has_token, has_fc_norm = "cls_token" in state, "fc_norm.weight" in state
    pool = "token" if has_token and not has_fc_norm else "avg"
    wanted: dict[str, tuple[Any, Any]] = {
        "img_size": (list(a.image_size), [SIDE, SIDE]),
        "patch_size": (a.patch_size, base.patch_size),
        "in_chans": (a.in_chans, 3),
        "embed_dim": (a.embed_dim, base.embed_dim),
        "depth": (a.depth, base.depth),
        "num_heads": (a.num_heads, base.num_heads),
        "mlp_ratio": (a.mlp_ratio, base.mlp_ratio),
        "init_values": (a.layer_scale, None),
        "class_token": (has_token, True),
        "global_pool": (pool, "token"),
        "fc_norm": (has_fc_norm, pool == "avg"),  # timm has one where it pools
    }
    args = {key: value for key, (value, usual) in wanted.items() if value != usual}
    _check(checkpoint, state, name, {**args, "num_classes": labels})
    return {
        "architecture": name,
        "num_classes": labels,
        "num_features": a.embed_dim,
        "global_pool": pool,
        "model_args": args,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [a.in_chans, *a.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "mean": list(checkpoint.normalisation.mean),
            "std": list(checkpoint.normalisation.std),
            "num_classes": labels,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if a.distilled else "head",
        },
    }


def beside(path: Path) -> tuple[str, ...]:
    """Return the names of the files that are written beside `path`."""
    return (CONFIG,) if path.name == WEIGHTS else ()


def config_text(checkpoint: Checkpoint, state: dict[str, Tensor], path: Path) -> dict[Path, str]:
    """Return config.json beside `path` and its text, nothing where timm would not open a file of that name.

    Beside another name it would be taken for that of any file in the folder. Raises ValueError where one is there that
    says otherwise.
    """
    if not beside(path):
        return {}
    config = path.with_name(CONFIG)
    text = json.dumps(model_config(checkpoint, state), indent=2) + "\n"
    if config.exists() and config.read_bytes() != text.encode():
        raise ValueError(
            f"{config}: is there already and says otherwise than these weights need; give --out in a folder of their "
            "own, or move it away."
        )
    return {config: text}


def remarks(path: Path) -> list[str]:
    """Return lines on what was written beside `path`, and on how timm opens it."""
    if not beside(path):
        return [f"--out FOLDER/{WEIGHTS} has timm's {CONFIG} beside it, so that timm opens the folder"]
    return [f"{CONFIG} is beside it: timm.create_model('local-dir:FOLDER', pretrained=True)"]


def _named(a: ViTConfig) -> tuple[str, ViTConfig]:
    """Return timm's name for the sizes and what it builds: the usual one, or that of ViT-B."""
    if a.distilled:
        return DISTILLED, FAMILY["vit_base_patch16"]
    sizes = ("embed_dim", "depth", "num_heads", "patch_size", "mlp_width")
    for name, config in FAMILY.items():
        if all(getattr(config, size) == getattr(a, size) for size in sizes) and timm.is_model(f"{name}_{SIDE}"):
            return f"{name}_{SIDE}", config
    return PLAIN, FAMILY["vit_base_patch16"]


def _check(checkpoint: Checkpoint, state: dict[str, Tensor], name: str, args: dict[str, Any]) -> None:
    with torch.device("meta"):
        built = timm.create_model(name, **args).state_dict()
    wanted = {key: tuple(tensor.shape) for key, tensor in built.items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if odd := [key for key in wanted | found if wanted.get(key) != found.get(key)]:
        raise ValueError(
            f"{checkpoint.path}: timm's {name} has other tensors than these weights: {listed(odd)}; "
            "write another format, as `own`."
        )
