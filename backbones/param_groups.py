"""Which parameter learns how fast: the only layer numbering of the project.

Layer-wise decay follows BEiT and MAE (arXiv 2111.06377, appendix A.1; `util/lr_decay.py`): the embedding is layer 0,
block i is layer i + 1, everything after the blocks is layer depth + 1, and a layer's scale is
decay ** (depth + 1 - layer). detectron2 and mmsegmentation number the layers alike. A table of relative positions that
blocks share belongs to no block and is in the last layer, as in BEiT's code.

What is free of weight decay differs between codes, so a recipe names its rule: an `Exempt` function of this module.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

EMBEDDING = ("cls_token", "dist_token", "reg_token", "pos_embed", "mask_token", "patch_embed.", "norm_pre.")
_BLOCK_NORM = re.compile(r"(.+\.)?blocks\.\d+\.(norm[12]|(attn|mlp)\.norm)\.(weight|bias)")
Exempt = Callable[[str, nn.Parameter], bool]


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a layer and a weight decay."""

    layer: int
    lr_scale: float
    weight_decay: float
    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]


def layer_of(name: str, *, depth: int, prefix: str = "") -> int:
    """Return the layer of a parameter: 0 the embedding, i + 1 block i, depth + 1 all else.

    `prefix` is where the ViT sits in the model (`backbone.`); a name that does not start with it is a head's.
    """
    if not name.startswith(prefix):
        return depth + 1
    local = name[len(prefix) :]
    if local.startswith(EMBEDDING):
        return 0
    if local.startswith("blocks."):
        number = int(local.split(".")[1])
        if number >= depth:
            raise ValueError(f"{name} is outside the depth of {depth} blocks.")
        return number + 1
    return depth + 1


def exempt_vectors_and_embeddings(name: str, parameter: nn.Parameter) -> bool:
    """True for biases, norms, layer scales, position tables and tokens before the patches: MAE's fine-tuning rule.

    BEiT's and what mmsegmentation intends; its code decays position table and class token, whose names it does not
    meet. Relative positions are decayed.
    """
    return parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in ("pos_embed", "cls_token", "dist_token", "reg_token")


def exempt_vectors(name: str, parameter: nn.Parameter) -> bool:
    """True for biases, norms and layer scales alone: MAE's pre-training rule (timm's `add_weight_decay`)."""
    return parameter.ndim <= 1


def exempt_block_norms_and_position(name: str, parameter: nn.Parameter) -> bool:
    """True for the norms of the blocks and the position table alone: detectron2's rule for ViTDet-B and -L.

    Biases and relative positions are decayed, and so are the norms of pyramid and heads: detectron2 means to exempt
    norms, but its own `LayerNorm` is none of the classes that it looks for.
    """
    return _BLOCK_NORM.fullmatch(name) is not None or name.rsplit(".", 1)[-1] == "pos_embed"


def exempt_nothing(name: str, parameter: nn.Parameter) -> bool:
    """False: every parameter is decayed, detectron2's rule for ViTDet-H."""
    return False


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    layer_decay: float = 1.0,
    depth: int,
    prefix: str = "",
    exempt: Exempt = exempt_vectors_and_embeddings,
) -> list[ParamGroup]:
    """Return groups that hold every trainable parameter exactly once, ordered by layer, decayed ones first.

    `layer_decay` 1.0 gives every layer the same learning rate. Raises ValueError where `prefix` finds no block, since
    then the decay would be lost in silence.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    blocks = f"{prefix}blocks."
    if not any(name.startswith(blocks) for name, _ in named):
        raise ValueError(
            f"no trainable parameter starts with {blocks!r}; the first is {named[0][0] if named else None}."
        )
    return _grouped(
        [(layer_of(name, depth=depth, prefix=prefix), name, parameter) for name, parameter in named],
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        depth=depth,
        exempt=exempt,
    )


def head_groups(
    model: nn.Module, *, weight_decay: float, depth: int, exempt: Exempt = exempt_vectors
) -> list[ParamGroup]:
    """Return every trainable parameter in the layer after the blocks: heads on a ViT none of which learns."""
    learning = [(depth + 1, name, p) for name, p in model.named_parameters() if p.requires_grad]
    return _grouped(learning, weight_decay=weight_decay, layer_decay=1.0, depth=depth, exempt=exempt)


def _grouped(
    named: Sequence[tuple[int, str, nn.Parameter]],
    *,
    weight_decay: float,
    layer_decay: float,
    depth: int,
    exempt: Exempt,
) -> list[ParamGroup]:
    """Return the groups of (layer, name, parameter)."""
    members: dict[tuple[int, bool], list[tuple[str, nn.Parameter]]] = {}
    for layer, name, parameter in named:
        members.setdefault((layer, exempt(name, parameter)), []).append((name, parameter))
    return [
        ParamGroup(
            layer=layer,
            lr_scale=layer_decay ** (depth + 1 - layer),
            weight_decay=0.0 if free else weight_decay,
            names=tuple(name for name, _ in pairs),
            params=tuple(parameter for _, parameter in pairs),
        )
        for (layer, free), pairs in sorted(members.items(), key=lambda item: item[0])
    ]
