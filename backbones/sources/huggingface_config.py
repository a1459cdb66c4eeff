"""What `config.json` and `preprocessor_config.json` beside a transformers file tell of its weights.

They are compared with the weights, as far as weights show the same, and refused where pixels are prepared in another
way than by scaling to 0..1 and normalising RGB.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.layers import LAYER_NORM_EPS
from backbones.sources.architecture import mlp_shape
from backbones.sources.source import BEIT_ALONE, POSITIONS, Renamed
from backbones.weights.normalisation import HALF, Normalisation
from files.parsing import read_json

CONFIG, PIXELS = "config.json", "preprocessor_config.json"
RESCALE = 1 / 255
# transformers' names of activations, to ours
_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
_GATED = {"silu": "swiglu"}
# fields of ViTConfig, to the entries that tell them
_TOLD = {"norm_eps": ("layer_norm_eps", "rms_norm_eps"), "rotary_base": ("rope_theta",)}
# in the order of POSITIONS
_BEIT_POSITIONS = {
    "use_absolute_position_embeddings": "position table",
    "use_shared_relative_position_bias": "relative position table of all blocks",
    "use_relative_position_bias": "relative position tables of the blocks",
}


def beside(renamed: Renamed, path: Path) -> Renamed:
    """Return it with what the two files in the folder of `path` tell.

    Raises ValueError where they cannot be read, are of another model, or say what this ViT and its data do not do.
    """
    config, pixels = read_object(path.with_name(CONFIG)), read_object(path.with_name(PIXELS))
    if isinstance(config.get("vision_config"), dict):  # of a model of images and texts
        config = config["vision_config"]
    kernel = renamed.state.get("patch_embed.proj.weight")
    if kernel is None:
        return renamed  # refused later
    _check_class_token(config, renamed)
    _check_native(config, renamed)
    _check_config(config, renamed.state, kernel, activations=_possible(renamed.untold))
    untold = _untold(config, renamed.untold)
    if "rotary" not in untold:
        _check_positions(config, renamed.state)
    notes = list(renamed.notes)
    normalisation = _normalisation(pixels, channels=kernel.shape[1])
    if normalisation is None:
        normalisation = renamed.normalisation
        which = {None: "ImageNet's constants", HALF: "0.5"}.get(normalisation, "CLIP's constants")
        notes.append(f"normalisation by {which}: usual for such names, no {PIXELS} beside the file says it")
    if not config and "activation" in untold:
        notes.append(f"activation {untold['activation']}: usual for such names, no {CONFIG} beside the file says it")
    if renamed.num_heads is not None and "num_attention_heads" not in config:
        notes.append(f"num_heads {renamed.num_heads}: usual for such names, no {CONFIG} beside the file says it")
    epsilon = config.get("layer_norm_eps", LAYER_NORM_EPS)
    if "norm_eps" not in untold and epsilon != LAYER_NORM_EPS:
        notes.append(f"norms have an epsilon of {LAYER_NORM_EPS} here, and of {epsilon} by {CONFIG}")
    return replace(
        renamed,
        num_heads=config.get("num_attention_heads", renamed.num_heads),
        image_size=renamed.image_size or _image_size(config, kernel.shape[-1]),
        normalisation=normalisation,
        untold=untold,
        notes=tuple(notes),
    )


def _check_class_token(config: Mapping[str, Any], renamed: Renamed) -> None:
    """Raise ValueError where there is no class token, and config.json does not say that the weights are I-JEPA's."""
    if (
        "cls_token" in renamed.state or renamed.untold or config.get("model_type") == "ijepa"
    ):  # towers are checked apart
        return
    raise ValueError(
        f"there is no cls_token, which all of transformers' models here but I-JEPA have, and no {CONFIG} beside the "
        "file says model_type ijepa: the file is not whole, or its config.json is not there."
    )


def _check_native(config: Mapping[str, Any], renamed: Renamed) -> None:
    """Raise ValueError where AIMv2's config.json and weights do not agree on whether there is a position table.

    transformers leaves a default out of the file, and Apple's own has no such entry.
    """
    native = config.get("is_native", False if config.get("model_type") == "aimv2_vision_model" else None)
    if native is False and renamed.untold.get("position") == "computed":
        raise ValueError(
            f"there is no pos_embed, and {CONFIG} beside it does not say is_native, as of AIMv2 for native resolution; "
            "the file is not whole, or the config.json is of another model."
        )
    if native and "pos_embed" in renamed.state:
        raise ValueError(
            f"{CONFIG} beside it has is_native true, and the file has a position table; fetch the one of this file."
        )


def _possible(usual: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the activations that config.json may name for weights of a kind that usually has these fields."""
    if usual.get("activation") == "swiglu":
        return _GATED
    return _ACTIVATIONS if "activation" in usual else {"gelu": "gelu"}


def _untold(config: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `usual`, which no tensor shows, as config.json has them.

    What it leaves out is transformers' default. Raises ValueError for CLIP where there is none.
    """
    found = dict(usual)
    if usual.get("activation") == "quick_gelu" and not config:
        raise ValueError(
            "CLIP's ViTs of OpenAI have a quick GELU, and those of OpenCLIP under the same names an exact one; no "
            f"{CONFIG} beside the file tells which this is: put it there."
        )
    if "activation" in usual and "hidden_act" in config:
        found["activation"] = _possible(usual)[config["hidden_act"]]
    return found | {
        name: config[told] for name, entries in _TOLD.items() for told in entries if name in usual and told in config
    }


def _check_config(
    config: Mapping[str, Any], state: Mapping[str, Tensor], kernel: Tensor, *, activations: Mapping[str, str]
) -> None:
    """Raise ValueError where config.json is of other weights than these, or of another kind of model."""
    if (activation := config.get("hidden_act", next(iter(activations)))) not in activations:
        kinds = "an exact GELU" if list(activations) == ["gelu"] else " or ".join(activations)
        raise ValueError(f"{CONFIG} beside it has hidden_act {activation!r}; the ViT here has {kinds}.")
    heads = config.get("num_attention_heads")
    if heads is not None and (type(heads) is not int or heads < 1):
        raise ValueError(f"{CONFIG} beside it has num_attention_heads {heads!r}, which is no number of heads.")
    found = {
        "hidden_size": kernel.shape[0],
        "num_channels": kernel.shape[1],
        "patch_size": list(kernel.shape[2:]),
        "num_hidden_layers": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
    }
    if "blocks.0.mlp.fc1.weight" in state:
        found["intermediate_size"] = mlp_shape(state)[0]
    for name, ours in found.items():
        stated = config.get(name, ours)
        if name == "patch_size":  # one number, or one for each axis
            stated = _pair(stated)
        if isinstance(stated, bool) or stated != ours:
            raise ValueError(
                f"{CONFIG} beside it has {name} {config[name]!r}, and the weights show {ours}; it is of another model: "
                "fetch the one of this file, or move it away."
            )


def _check_positions(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError where Beit's positions are not those of config.json, or there are none and it says nothing."""
    if not any(name.endswith(BEIT_ALONE) for name in state):
        return  # that of ViT and ViTMAE is always there
    for (flag, kind), name in zip(_BEIT_POSITIONS.items(), POSITIONS, strict=True):
        if config.get(flag) is True and name not in state:
            raise ValueError(f"{CONFIG} beside it has {flag} true, and the file has no {kind}; it is not whole.")
    declared = config.get("model_type") == "beit" and not any(config.get(flag) for flag in _BEIT_POSITIONS)
    if not declared and not any(name in state for name in POSITIONS):
        raise ValueError(
            f"there are no positions of any kind ({', '.join(_BEIT_POSITIONS.values())}); the file is not whole, or "
            f"the {CONFIG}, which would say that Beit has none, does not lie beside it."
        )


def _image_size(config: Mapping[str, Any], patch: int) -> tuple[int, int] | None:
    """Return height and width in pixels that whole patches cover, None where they are not told."""
    stated = config.get("image_size")
    if stated is None:
        return None
    size = _pair(stated)
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or side < patch for side in size):
        raise ValueError(
            f"{CONFIG} beside it has image_size {stated!r}, which is no height and width of a patch or more in pixels."
        )
    return size[0] // patch * patch, size[1] // patch * patch  # transformers leaves the pixels at the end out


def _normalisation(pixels: Mapping[str, Any], *, channels: int) -> Normalisation | None:
    """Return what preprocessor_config.json normalises with, None where it does not say or there is none.

    Raises ValueError where it does not scale to 0..1, does not normalise, or turns the order of the channels.
    """
    for name, wanted in (("do_rescale", True), ("do_normalize", True), ("do_flip_channel_order", False)):
        if pixels.get(name) not in (None, wanted):
            raise ValueError(
                f"{PIXELS} beside it has {name} {pixels[name]!r}; pixels here are RGB, scaled to 0..1 and normalised. "
                f"State what that comes to as image_mean and image_std (0 and 1 for pixels from 0 to 1), {name} as "
                f"{str(wanted).lower()}, or convert the weights."
            )
    factor = RESCALE if pixels.get("rescale_factor") is None else pixels["rescale_factor"]
    # some are written with three digits
    if (
        isinstance(factor, bool)
        or not isinstance(factor, int | float)
        or not math.isclose(factor, RESCALE, rel_tol=1e-3)
    ):
        raise ValueError(
            f"{PIXELS} beside it has rescale_factor {factor!r}; pixels here are scaled by 1/255. State image_mean and "
            "image_std for pixels from 0 to 1, and leave rescale_factor out."
        )
    if pixels.get("image_mean") is None and pixels.get("image_std") is None:
        return None
    constants = []
    for name in ("image_mean", "image_std"):
        values = pixels.get(name)
        if not isinstance(values, list) or len(values) != channels:
            raise ValueError(
                f"{PIXELS} beside it has {name} {values!r}, which is no list of a number for each of {channels} "
                "channels."
            )
        constants.append(tuple(values))
    return Normalisation(*constants)


def _pair(value: Any) -> Any:
    """Return one number for both axes as two; anything else as it is."""
    return [value, value] if type(value) is int else value


def read_object(path: Path) -> dict[str, Any]:
    """Return what the file holds, nothing where there is none. Raises ValueError where it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path.name} beside it is no JSON ({error}); fetch it again or move it away.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} beside it holds no JSON object; fetch it again or move it away.")
    return content
