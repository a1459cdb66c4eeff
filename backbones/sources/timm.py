"""timm's `vit_*` and `deit*` weights, and DeiT's own files (arXiv 2012.12877, 2204.07118).

Our names are timm's but for the layer scale (`ls1.gamma` is `gamma_1`). `pre_logits` of the old `jx_vit_*` is dropped,
and with it the head, which reads its output. Where the position table has no rows for the tokens before the patches
(DeiT III), rows of zeros are put there, which add nothing. Of DeiT's training checkpoints `model` is taken, never
`model_ema`.

A file does not say how its pixels were normalised, so two sources share these names: `timm` has ImageNet's constants
(DeiT, `.mae`, `.dino`), `augreg` has 0.5 (timm's default for `vit_*`: AugReg, `.orig_in21k`, `.sam`). `mean` in the
config.json that timm publishes beside each file tells which to declare; files of other constants (`.bamboo`) are for
neither. Nor can a file show what has no parameter: `vit_*_rope_ape_*` (rotary positions), `vit_*_rpn_*` (norms behind
the branches) and SigLIP's `so400m` and `giantopt` (tanh GELU) have these names and compute something else.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from backbones.checkpoint import Checkpoint
from backbones.sources.source import DECODER, HEAD, Renamed, Source, listed, rename_each

_WB = r"(weight|bias)"
PLAIN_BLOCK = rf"(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}"
PLAIN = rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.{PLAIN_BLOCK}|(norm|fc_norm|head)\.{_WB}"
OURS = re.compile(rf"{PLAIN}|dist_token|head_dist\.{_WB}|blocks\.\d+\.gamma_[12]")
REPRESENTATION = "the representation layer of ImageNet-21K pre-training, which timm left off"


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return timm's tensors in our names. Raises ValueError for a name that no plain ViT of timm has."""
    drop = [(r"pre_logits\..*", REPRESENTATION)]
    if any(name.startswith("pre_logits.") for name in tensors):
        drop.append((r"head\..*", "a head that reads pre_logits"))
    renamed = rename_each(tensors, _ours, drop=drop)
    if "pos_embed" not in renamed.state:
        raise ValueError(
            "there is no pos_embed; timm's models without one have rotary positions, which no tensor holds."
        )
    return replace(renamed, state=_with_prefix_rows(renamed.state))


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as `VisionTransformer` and `VisionTransformerDistilled` load it strictly.

    Raises ValueError for what they have no place for, a decoder among it.
    """
    require_plain(checkpoint, OURS, "timm's VisionTransformer")
    return {re.sub(r"gamma_([12])$", r"ls\1.gamma", name): tensor for name, tensor in checkpoint.state.items()}


def require_plain(checkpoint: Checkpoint, names: re.Pattern[str], model: str) -> None:
    """Raise ValueError where `model`, whose parameters are `names`, computes something else than these weights do."""
    if homeless := [name for name in checkpoint.state if not names.fullmatch(name)]:
        encoder = all(DECODER.fullmatch(name) or HEAD.fullmatch(name) for name in homeless)
        way_out = "leave decoder and head out (--encoder-only)" if encoder else "write another format; `own` takes all"
        raise ValueError(
            f"{checkpoint.path}: {model} has no place for {len(homeless)} tensors: {listed(homeless)}; {way_out}."
        )
    if window := checkpoint.architecture.window_size:
        raise ValueError(
            f"{checkpoint.path}: the blocks attend within windows of {window} patches, and {model} has none; "
            "write another format, as `own`."
        )


def _ours(name: str) -> str:
    """Return our name, or an empty one for what timm's plain ViT has not, though another family of ours may."""
    new = re.sub(r"ls([12])\.gamma$", r"gamma_\1", name)
    return new if OURS.fullmatch(new) else ""


def _with_prefix_rows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with a position table that has a row for every token before the patches."""
    prefix = sum(name in state for name in ("cls_token", "dist_token"))
    if not prefix or "pos_embed" not in state or state["pos_embed"].ndim != 3:
        return state
    table_1PD = state["pos_embed"]
    rows = table_1PD.shape[1]
    if math.isqrt(rows) ** 2 != rows:  # one square is never one or two above another, so this is the whole grid
        return state
    return {**state, "pos_embed": torch.cat([table_1PD.new_zeros(1, prefix, table_1PD.shape[2]), table_1PD], dim=1)}


SOURCE = Source(
    name="timm",
    title="timm vit_* and deit* with ImageNet's mean and deviation, DeiT's own files",
    entries=("model", "state_dict"),
    rename=rename,
    restore=restore,
    written_as="safetensors",
)
