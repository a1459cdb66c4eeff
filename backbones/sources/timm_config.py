"""What timm says of a file beside its tensors: heads, pixels, and whether it computes what the ViT here does.

A `config.json` of timm beside the file decides, else a name that is known: of the file, of its folder, or of the hub's
cache, looked for in the installed timm and among the public checkpoints (backbones/weights/zoo.py). timm's model of
that name is built without memory: it tells the activation and the epsilon of the norms. It is compared too,
since some of its models have the names of a plain ViT and compute something else: rotary positions, norms behind the
branches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Attention, GluMlp, RmsNorm, SwiGLU
from timm.models import get_pretrained_cfg
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from backbones.config import FAMILY
from backbones.layers import LAYER_NORM_EPS
from backbones.sources.huggingface_config import CONFIG, read_object
from backbones.sources.source import Renamed
from backbones.sources.timm_eva import UNTOLD_CLASS, UNTOLD_POSITIONS, eva_differences, eva_untold
from backbones.weights.normalisation import Normalisation
from backbones.weights.zoo import find_public

# arguments of a model that shapes show, or that change no token: others may change what is computed
_SEEN = {
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "embed_dim",
    "depth",
    "mlp_ratio",
    "global_pool",
    "fc_norm",
}
_SEEN |= {
    "class_token",
    "reg_tokens",
    "no_embed_class",
    "init_values",
    "drop_rate",
    "drop_path_rate",
    "pos_drop_rate",
    "num_heads",
}
_SEEN |= {"dynamic_img_size", "proj_drop_rate", "attn_drop_rate", "patch_drop_rate", "weight_init"}
# of modules of timm, to ours; an exact GELU needs no word
_ACTIVATIONS = {"gelu tanh": "gelu_tanh", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
# beginnings of names of tensors
_TOWERS = {
    "attn_pool.": "SigLIP towers and Perception Encoders",
    "norm_pre.": "CLIP towers and Perception Encoders",
    "patch_embed.norm.": "AIMv2 ViTs",
    "blocks.0.attn.norm.": "ViTs with a norm in attention (BEiT-3, EVA-02's CLIP)",
}
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # named alike for all models


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a file beside its tensors."""

    by: str
    """Who says it, for messages."""
    num_heads: int
    normalisation: Normalisation | None
    """None where the models of that name were trained with different constants."""
    shape: tuple[int, int, int]
    """Width, depth and patch size."""
    untold: Mapping[str, Any] = field(default_factory=dict)
    """As `Renamed.untold`."""
    notes: tuple[str, ...] = ()


def beside(renamed: Renamed, path: Path) -> Renamed:
    """Return it with what timm or the table of public checkpoints knows of the file, unchanged where neither does.

    Raises ValueError where that is another model than a plain ViT, or of another shape than the weights.
    """
    kernel = renamed.state.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4:
        return renamed  # refused later
    names = [*renamed.state, *renamed.dropped]
    foreign: tuple[str, ...] = ()
    config = read_object(path.with_name(CONFIG))
    if "architecture" in config:
        told: Told | None = _by_config(config)
    else:
        if config:
            foreign = (f"{CONFIG} beside the file is not timm's (it has no `architecture`): not used",)
        told = _by_name(path)
    if told is None:
        if renamed.ambiguous in (UNTOLD_POSITIONS, UNTOLD_CLASS):  # heads that are declared tell no positions
            raise ValueError(f"{renamed.ambiguous}.")
        if tower := next((what for sign, what in _TOWERS.items() if any(n.startswith(sign) for n in names)), None):
            raise ValueError(
                f"timm's {tower} differ in what no tensor shows (activation, epsilon of the norms), and no {CONFIG} of "
                "timm beside the file and no known name tells which it is: put that beside it, or give it timm's name."
            )
        return replace(renamed, notes=(*renamed.notes, *foreign))
    _compare(told, renamed.state, kernel)
    return replace(
        renamed,
        num_heads=told.num_heads if renamed.num_heads is None else renamed.num_heads,
        normalisation=told.normalisation,
        ambiguous="",
        untold=told.untold,
        notes=(*renamed.notes, *foreign, *told.notes),
    )


def _by_config(config: Mapping[str, Any]) -> Told:
    """Return what a config.json of timm says. Raises ValueError where it says what is not known or not done here."""
    name, given = config["architecture"], config.get("model_args") or {}
    by = f"{CONFIG} beside it"
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise ValueError(f"{by} has architecture {name!r} and model_args {given!r}; fetch it again or move it away.")
    if other := sorted(set(given) - _SEEN):
        raise ValueError(f"{by} has model_args {', '.join(other)}, which may change what the ViT computes.")
    heads, shape, untold = _plain(name, by)
    if (stated := given.get("num_heads", heads)) != heads:
        if type(stated) is not int or stated < 1:
            raise ValueError(f"{by} has num_heads {stated!r}, which is no number of heads.")
        heads = stated
    shape = (given.get("embed_dim", shape[0]), given.get("depth", shape[1]), given.get("patch_size", shape[2]))
    pixels = config.get("pretrained_cfg")
    pixels = config if not isinstance(pixels, Mapping) else pixels  # flat before timm 0.6
    untold, notes = _natively(f"{name}.{pixels.get('tag')}", untold)
    return Told(by=by, num_heads=heads, normalisation=_stated(pixels, by), shape=shape, untold=untold, notes=notes)


def _stated(pixels: Mapping[str, Any], by: str) -> Normalisation | None:
    mean, std = pixels.get("mean"), pixels.get("std")
    if mean is None and std is None:
        return None
    if not isinstance(mean, list) or not isinstance(std, list):
        raise ValueError(f"{by} has mean {mean!r} and std {std!r}, which are no lists of a number for each channel.")
    return Normalisation(tuple(mean), tuple(std))


def _by_name(path: Path) -> Told | None:
    """Return what the name says, None where it is of no published model."""
    if public := find_public(path.name):
        config = FAMILY[public.architecture]
        return Told(
            by=f"the public checkpoint {public.name}",
            num_heads=config.num_heads,
            normalisation=Normalisation(public.mean, public.std),
            shape=(config.embed_dim, config.depth, config.patch_size),
        )
    by_file = _files().get(path.name)
    folder = path.parent.name if path.name in _HUB_FILES else ""
    names = (by_file, path.stem, path.name, folder, _cached(path))
    name = next((name for name in names if name and timm.is_model(name.partition(".")[0])), None)
    if name is None:
        return None
    architecture, _, tag = name.partition(".")
    by = f"its name, of timm's {name},"
    heads, shape, untold = _plain(architecture, by)
    untold, notes = _natively(name, untold)
    found = {_constants(get_pretrained_cfg(n)) for n in _tagged().get(architecture, ())}
    exact = get_pretrained_cfg(name, allow_unregistered=False) if tag and name in timm.list_pretrained() else None
    normalisation = _constants(exact) if exact else found.pop() if len(found) == 1 else None
    said = ("heads by the name",) if normalisation is None else ("heads, mean and std of the pixels by the name",)
    notes = (*notes, *(f"{text}, which is timm's {name}" for text in said))
    return Told(by=by, num_heads=heads, normalisation=normalisation, shape=shape, untold=untold, notes=notes)


def _natively(name: str, untold: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return it and a note, with OpenAI's activation where timm's notes on the published model say it was trained so.

    timm builds such models with an exact GELU unless asked for their `quickgelu` variant.
    """
    published = get_pretrained_cfg(name, allow_unregistered=False) if name in _published() else None
    if published is None or not any("natively QuickGELU" in note for note in published.notes or ()):
        return untold, ()
    note = f"activation quick_gelu: timm's notes on {name} say that it was trained with it"
    return {**untold, "activation": "quick_gelu"}, (note,)


@lru_cache(maxsize=1)
def _published() -> frozenset[str]:
    return frozenset(timm.list_pretrained())


def _cached(path: Path) -> str:
    """Return the model's name where the file lies in the cache of the Hugging Face hub, empty elsewhere."""
    folders = [part for part in path.absolute().parts if part.startswith("models--")]
    return folders[-1].rpartition("--")[2] if folders else ""


@lru_cache(maxsize=1)
def _tagged() -> dict[str, list[str]]:
    """Every published model by its architecture."""
    names: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        names.setdefault(name.partition(".")[0], []).append(name)
    return names


@lru_cache(maxsize=1)
def _files() -> dict[str, str]:
    """timm's name of every file that it links to."""
    configs = {name: get_pretrained_cfg(name) for names in _tagged().values() for name in names}
    return {config.url.rpartition("/")[2]: name for name, config in configs.items() if config and config.url}


def _constants(config: Any) -> Normalisation:
    return Normalisation(tuple(config.mean), tuple(config.std))


@lru_cache(maxsize=8)
def _plain(architecture: str, by: str) -> tuple[int, tuple[int, int, int], Mapping[str, Any]]:
    """Return heads, (width, depth, patch size) and what no tensor shows of timm's model.

    Raises ValueError where this timm does not have it, or it computes something else than the ViT here.
    """
    if not timm.is_model(architecture):
        raise ValueError(
            f"{by} has architecture {architecture!r}, which timm {timm.__version__} does not know, so it cannot be "
            f"said what it computes. Install a timm that does, or move {CONFIG} away and declare mean, std and heads "
            "(--init-mean, --init-std, --init-heads)."
        )
    with torch.device("meta"):  # shapes alone
        model = timm.create_model(architecture)
    if odd := _differences(model):
        raise ValueError(f"{by} is of {architecture}, which is no plain ViT: it has {', '.join(odd)}. Not supported.")
    block = model.blocks[0]
    untold: dict[str, Any] = {"position": "none" if model.pos_embed is None else "learned"}
    if isinstance(model, Eva):
        untold |= eva_untold(model)
    if (activation := _ACTIVATIONS.get(_act(block))) is not None:
        untold["activation"] = activation
    if block.norm1.eps != LAYER_NORM_EPS:
        untold.setdefault("norm_eps", block.norm1.eps)
    shape = (model.embed_dim, len(model.blocks), model.patch_embed.patch_size[0])
    return block.attn.num_heads, shape, untold


def _act(block: nn.Module) -> str:
    """Return the name of the MLP's activation."""
    act = getattr(getattr(block, "mlp", None), "act", None)
    if isinstance(act, nn.GELU):
        return f"gelu {act.approximate}"
    return type(act).__name__


def _differences(model: nn.Module) -> list[str]:
    """Return in what the model computes otherwise than the ViT here; what parameters show is not looked at."""
    if type(model) is Eva:
        return eva_differences(model)
    if type(model) not in (VisionTransformer, VisionTransformerDistilled, Beit):
        rotary = getattr(model, "rope", None) is not None
        return [f"timm's class {type(model).__name__}{' with rotary positions' if rotary else ''}"]
    assert isinstance(model.blocks, nn.Sequential | nn.ModuleList)
    odd: list[str] = []
    for block in model.blocks:
        mlp = getattr(block, "mlp", None)
        act = _act(block)
        gated = act == "SiLU" and (isinstance(mlp, SwiGLU) or (isinstance(mlp, GluMlp) and not mlp.gate_last))
        if isinstance(model, VisionTransformer) and type(block) is not Block:
            odd.append(f"blocks of the class {type(block).__name__}")
        elif isinstance(model, VisionTransformer) and type(block.attn) is not Attention:
            odd.append(f"attention of the class {type(block.attn).__name__}")
        elif not isinstance(block.norm1, nn.LayerNorm | RmsNorm):
            odd.append(f"norms of the class {type(block.norm1).__name__}")
        elif not gated and act != "gelu none" and act not in _ACTIVATIONS:
            odd.append(f"the activation {act}, which the ViT here does not have")
    return sorted(set(odd))


def _compare(told: Told, state: Mapping[str, Tensor], kernel: Tensor) -> None:
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    found = (kernel.shape[0], depth, kernel.shape[-1])
    if told.shape != found:
        raise ValueError(
            f"{told.by} is of a ViT of width {told.shape[0]}, depth {told.shape[1]} and patches of {told.shape[2]}, "
            f"and the weights have {found[0]}, {found[1]} and {found[2]}; it is of another model: give the file "
            f"another name, or fetch its own {CONFIG}."
        )


def agreeing(renamed: Renamed, path: Path, *, wanted: Normalisation, other: str) -> Renamed:
    """As `beside`, for a source of one normalisation. Raises ValueError where the file is of another one."""
    found = beside(renamed, path)
    if found.normalisation not in (None, wanted):
        assert found.normalisation is not None
        raise ValueError(
            f"its {CONFIG} or name says a mean of {found.normalisation.mean} and a std of {found.normalisation.std}, "
            f"and this source is for {wanted.mean} and {wanted.std}; declare source {other!r}."
        )
    return found
