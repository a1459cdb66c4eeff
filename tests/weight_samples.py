"""A tiny file of every family of weights, its tensors random: what the sources read, and what is damaged in tests."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.config import ViTConfig
from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint, write_state
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import HALF, IMAGENET
from backbones.weights.read import read_checkpoint

HEADS = 2
PLAIN = ViTConfig(embed_dim=8, depth=2, num_heads=HEADS, patch_size=4, image_size=(16, 16), mlp_ratio=1.0)
BEIT = replace(PLAIN, position="none", qkv_bias="qv", layer_scale=0.1, relative_position="shared_table")
SCALED = replace(PLAIN, layer_scale=0.1)
CLIP = replace(PLAIN, pre_norm=True)
DINOV3 = replace(SCALED, position="none", registers=2, rotary="centred", norm_eps=1e-5, qkv_bias="none")
SAM = replace(PLAIN, relative_position="decomposed", window_size=2, global_blocks=(1,))
VITDET = replace(PLAIN, relative_position="decomposed", window_size=2, global_blocks=(1,))


@dataclass(frozen=True)
class Sample:
    """One file of a family before it is written."""

    source: str
    content: dict[str, Any]
    """Tensors by name, or an entry that holds them and what lies beside it."""
    ending: str = ".pth"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors, by their names in the file."""
        entry = next((value for value in self.content.values() if isinstance(value, dict) and value), self.content)
        return dict(entry)

    def with_tensors(self, tensors: dict[str, Any]) -> "Sample":
        """The sample with other tensors in their place."""
        for name, value in self.content.items():
            if isinstance(value, dict) and value:
                return replace(self, content={**self.content, name: tensors})
        return replace(self, content=tensors)

    def write(self, path: Path) -> Path:
        """Write it to `path` with the family's ending and return that path."""
        path = path.with_name(path.name + self.ending)
        if self.source == "own":
            write_state(path, self.tensors, architecture=PLAIN, source="mae", normalisation=IMAGENET)
        elif self.source == "openclip":
            torch.save(self.content, path)
            vision = {"model_cfg": {"vision_cfg": {"head_width": 4}}}
            path.with_name("open_clip_config.json").write_text(json.dumps(vision))
        elif self.ending == ".npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in self.content.items()})
        elif self.ending == ".safetensors":
            save_file(self.content, path)
        else:
            torch.save(self.content, path)
        return path

    def read(self, path: Path, source: str | None = None) -> Checkpoint:
        """What the family's source, or another, makes of the file at `path`."""
        declared = InitialWeights(path=path, source=source or self.source, num_heads=HEADS)
        pixels = {"timm": IMAGENET, "beit": HALF}.get(declared.source)  # no name of theirs, so they tell neither
        return read_checkpoint(declared if pixels is None else replace(declared, mean=pixels.mean, std=pixels.std))


def weight_samples() -> dict[str, Sample]:
    """One sample by the name of each source."""
    written: dict[str, tuple[ViTConfig, Callable[[dict[str, Tensor]], dict[str, Any]]]] = {
        "mae": (PLAIN, lambda state: {"model": state, "epoch": 3}),
        "timm": (PLAIN, dict),
        "beit": (BEIT, lambda state: {"model": state}),
        "dino": (PLAIN, lambda state: {"teacher": {f"backbone.{n}": t for n, t in state.items()}, "student": {}}),
        "huggingface": (PLAIN, dict),
        "detectron2": (VITDET, lambda state: {"model": state, "iteration": 1}),
        "mmseg": (BEIT, lambda state: {"meta": {}, "state_dict": {f"backbone.{n}": t for n, t in state.items()}}),
    }
    samples = {
        name: Sample(name, nest(_restored(name, a)), ".safetensors" if name in ("timm", "huggingface") else ".pth")
        for name, (a, nest) in written.items()
    }
    plain = _random(PLAIN)
    both = {f"module.base_encoder.{n}": t for n, t in plain.items()}
    both |= {f"module.momentum_encoder.{n}": t + 1 for n, t in plain.items()} | {"module.predictor.0.weight": _noise(4)}
    student = {"student": {f"module.backbone.{n}": t for n, t in plain.items()}, "teacher": {}}
    layers = {f"backbone.{n}": t for n, t in _mmpretrain(plain).items()} | {"head.layers.head.weight": _noise(3, 8)}
    scaled = {re.sub(r"gamma_([12])$", r"ls\1.gamma", n): t for n, t in _random(SCALED).items()}
    return samples | {
        "own": Sample("own", dict(plain), ".safetensors"),
        "dinov2": Sample("dinov2", scaled | {"mask_token": _noise(1, 8)}),
        "openclip": Sample("openclip", _openclip(_random(CLIP))),
        "dinov3": Sample("dinov3", _dinov3(_random(DINOV3))),
        "sam": Sample("sam", _sam(_random(SAM))),
        "ijepa": Sample("ijepa", _ijepa()),
        "augreg": Sample("augreg", _jax(plain), ".npz"),
        "moco_v3": Sample("moco_v3", {"state_dict": both, "epoch": 1}),
        "moco_v3_momentum": Sample("moco_v3_momentum", {"state_dict": both, "epoch": 1}),
        "dino_student": Sample("dino_student", student),
        "mmpretrain": Sample("mmpretrain", {"meta": {}, "state_dict": layers}),
        "mmpretrain_half": Sample("mmpretrain_half", {"meta": {}, "state_dict": layers}),
    }


def _openclip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    table = (("patch_embed.proj", "conv1"), ("cls_token", "class_embedding"), ("pos_embed", "positional_embedding"))
    table += (("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."), (".norm", ".ln_"), ("norm.", "ln_post."))
    table += (("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("fc1", "c_fc"), ("fc2", "c_proj"))
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in table:
            name = name.replace(ours, theirs)
        renamed[f"visual.{name}"] = (
            tensor.flatten() if "class" in name else tensor[0] if "positional" in name else tensor
        )
    return renamed


def _ijepa() -> dict[str, Any]:
    target = {f"module.{n}": torch.randn_like(t) for n, t in ViT(PLAIN, class_token=False).state_dict().items()}
    context = {name: tensor + 1 for name, tensor in target.items()}
    predictor = {"module.predictor_embed.weight": _noise(4, 8)}
    return {"target_encoder": target, "encoder": context, "predictor": predictor, "epoch": 3}


def _random(architecture: ViTConfig) -> dict[str, Tensor]:
    torch.manual_seed(4)
    dense = architecture.window_size > 0
    vit = ViT(architecture, class_token=not dense, final_norm=not dense)
    return {name: torch.randn_like(tensor) for name, tensor in vit.state_dict().items()}


def _dinov3(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters in the names of DINOv3's own files."""
    renamed = {re.sub(r"gamma_([12])$", r"ls\1.gamma", name): tensor for name, tensor in ours.items()}
    renamed["storage_tokens"] = renamed.pop("reg_token")
    return renamed | {"mask_token": _noise(1, 8), "rope_embed.periods": torch.ones(1)}


def _sam(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters in the names of SAM's own files."""
    renamed = {name.replace("mlp.fc", "mlp.lin"): tensor for name, tensor in ours.items()}
    renamed["pos_embed"] = renamed["pos_embed"].unflatten(1, SAM.grid)
    return {f"image_encoder.{name}": tensor for name, tensor in renamed.items()}


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape)


def _restored(source: str, architecture: ViTConfig) -> dict[str, Tensor]:
    restore = SOURCES[source].restore
    assert restore is not None
    checkpoint = Checkpoint(
        path=Path("sample"),
        digest=lambda: "",
        state=_random(architecture),
        architecture=architecture,
        source=source,
        normalisation=HALF if source == "beit" else IMAGENET,
    )
    return {name: tensor.contiguous() for name, tensor in restore(checkpoint).items()}


def _mmpretrain(plain: dict[str, Tensor]) -> dict[str, Tensor]:
    table = (("patch_embed.proj.", "patch_embed.projection."), ("blocks.", "layers."), (".norm", ".ln"))
    table += ((".mlp.fc1.", ".ffn.layers.0.0."), (".mlp.fc2.", ".ffn.layers.1."))
    renamed = {}
    for name, tensor in plain.items():
        for ours, theirs in table:
            name = name.replace(ours, theirs)
        renamed["ln1." + name.removeprefix("norm.") if name.startswith("norm.") else name] = tensor
    return renamed


def _jax(plain: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters in the layout of Google's .npz: kernels with the input first, attention split by head."""
    width = PLAIN.embed_dim
    new = {
        "cls": plain["cls_token"],
        "embedding/kernel": plain["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": plain["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": plain["pos_embed"],
        "Transformer/encoder_norm/scale": plain["norm.weight"],
        "Transformer/encoder_norm/bias": plain["norm.bias"],
    }
    for i in range(PLAIN.depth):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        weights, biases = (plain[f"{ours}attn.qkv.{leaf}"].chunk(3) for leaf in ("weight", "bias"))
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            new[f"{attention}{part}/kernel"] = weight.T.unflatten(1, (HEADS, width // HEADS))
            new[f"{attention}{part}/bias"] = bias.unflatten(0, (HEADS, width // HEADS))
        new[f"{attention}out/kernel"] = plain[f"{ours}attn.proj.weight"].T.unflatten(0, (HEADS, width // HEADS))
        new[f"{attention}out/bias"] = plain[f"{ours}attn.proj.bias"]
        for norm, number in (("norm1", 0), ("norm2", 2)):
            new[f"{theirs}LayerNorm_{number}/scale"] = plain[f"{ours}{norm}.weight"]
            new[f"{theirs}LayerNorm_{number}/bias"] = plain[f"{ours}{norm}.bias"]
        for dense, number in (("mlp.fc1", 0), ("mlp.fc2", 1)):
            new[f"{theirs}MlpBlock_3/Dense_{number}/kernel"] = plain[f"{ours}{dense}.weight"].T
            new[f"{theirs}MlpBlock_3/Dense_{number}/bias"] = plain[f"{ours}{dense}.bias"]
    return {name: tensor.contiguous() for name, tensor in new.items()}
