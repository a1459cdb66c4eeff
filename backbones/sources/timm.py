"""timm's `vit_*` and `deit*` weights, DINOv3 among them, and DeiT's own files (arXiv 2012.12877, 2204.07118).

Our names are timm's but for the layer scale (`ls1.gamma` is `gamma_1`). `pre_logits` of the old `jx_vit_*` is dropped,
and with it the head, which reads its output. Where the position table has no rows for the tokens before the patches
(DeiT III, and DINOv2 with registers, whose class token has the position in it), rows of zeros are put there, which add
nothing. Such a square has as many rows as an oblong with a class
token (14 x 14 = 13 x 15 + 1), so an image that is no square is to be declared. Of DeiT's training checkpoints `model`
is taken, never `model_ema`.

A file does not say how its pixels were normalised, nor what has no parameter: `vit_*_rope_ape_*` (rotary positions) and
`vit_*_rpn_*` (norms behind the branches) have these names and compute something else, SigLIP's and CLIP's towers differ
in activation and epsilon, models of class Eva (DINOv3) in rotary positions, and `vit_base_patch16_gap_224` has 16
heads. timm's config.json beside the file or a known name tells (backbones/sources/timm_config.py). Without either,
towers and class Eva are refused, and mean and std must be declared, and the heads too where such a model has the same
tensors. `augreg` shares these names and declares mean and std 0.5
(AugReg, `.orig_in21k`, `.sam`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from backbones.sources.architecture import whole_patches
from backbones.sources.parts import Place, join_parts
from backbones.sources.source import DECODER, HEAD, Renamed, Source, listed, rename_each, whole
from backbones.sources.timm_config import beside
from backbones.sources.timm_eva import UNTOLD_CLASS, UNTOLD_POSITIONS
from backbones.weights.checkpoint import Checkpoint

_WB = r"(weight|bias)"
PLAIN_BLOCK = rf"(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}"
PLAIN = rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.{PLAIN_BLOCK}|(norm|fc_norm|head)\.{_WB}"
OURS = re.compile(rf"{PLAIN}|dist_token|reg_token|norm_pre\.{_WB}|head_dist\.{_WB}|blocks\.\d+\.gamma_[12]")
READ = re.compile(
    rf"{OURS.pattern}|blocks\.\d+\.(attn\.[qv]_bias|(attn|mlp)\.norm\.{_WB})|patch_embed\.norm\.{_WB}"
)  # Eva's, AIMv2's
# of the class Eva: layers of their own for queries, keys and values, and for a gate and what it gates
_PART = re.compile(rf"(blocks\.\d+\.)(?:attn\.([qkv])_proj|mlp\.fc1_([gx]))\.{_WB}")
UNTOLD = "rotary positions (`vit_*_rope_ape_*`) leave no tensor"
NO_CLASS_TOKEN = (
    "timm's ViTs without a class token differ in heads (`vit_base_patch16_gap_224` has 16), norms (`vit_*_rpn_*`) and "
    "activation (`*_siglip_gap_*`)"
)
POOL = "SigLIP's or Perception Encoder's head, which pools the tokens by attention"
REPRESENTATION = "the representation layer of ImageNet-21K pre-training, which timm left off"


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return timm's tensors in our names.

    Raises ValueError for a name that no ViT of timm that is read has.
    """
    drop = [(r"pre_logits\..*", REPRESENTATION), (r"attn_pool\..*", POOL)]
    if any(name.startswith("pre_logits.") for name in tensors):
        drop.append((r"head\..*", "a head that reads pre_logits"))
    if any(name.startswith("attn_pool.") for name in tensors):  # Perception Encoder's, a projection
        drop.append((r"head\..*", "a head that reads the pooling by attention"))
    found, known = join_parts(tensors, _place, keys_without_bias=True)
    renamed = rename_each(found, lambda name: name if name in known else _ours(name), drop=drop)
    if "pos_embed" not in renamed.state:
        renamed = replace(renamed, ambiguous=UNTOLD_POSITIONS)
    elif "blocks.0.attn.q_bias" in renamed.state:
        renamed = replace(renamed, ambiguous=UNTOLD_CLASS)
    elif "cls_token" not in renamed.state:  # vit_*_gap_* have none
        note = "cls_token: the file has none; the ViT is taken without"
        renamed = replace(renamed, notes=(*renamed.notes, note), ambiguous=NO_CLASS_TOKEN)
    elif "blocks.0.gamma_1" in tensors and math.isqrt(rows := renamed.state["pos_embed"].shape[1]) ** 2 == rows:
        renamed = replace(renamed, ambiguous=UNTOLD)  # DeiT III's own spelling, and that of timm's Eva
    return whole(renamed)


def complete(renamed: Renamed, image_size: tuple[int, int] | None) -> Renamed:
    """Return it with a position table that has a row for every token before the patches, zeros where it had none.

    The image is a square unless declared.
    """
    state = renamed.state
    num_prefix_positions = sum(name in state for name in ("cls_token", "dist_token"))
    if not num_prefix_positions or not {"pos_embed", "patch_embed.proj.weight"} <= state.keys():  # refused later
        return renamed
    rows, patch = state["pos_embed"].shape[1], state["patch_embed.proj.weight"].shape[-1]
    side = math.isqrt(rows)
    height, width = whole_patches(image_size, patch) if image_size else (side, side)
    if rows != height * width:
        return renamed
    taken = f"{rows} rows taken as {height} x {width} patches"
    added = f"pos_embed: {taken}, zeros put before them for {num_prefix_positions} other tokens"
    return replace(
        renamed,
        state={**state, "pos_embed": F.pad(state["pos_embed"], (0, 0, num_prefix_positions, 0))},
        notes=(*renamed.notes, added),
    )


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as `VisionTransformer` and `VisionTransformerDistilled` load it strictly.

    Raises ValueError for what they have no place for, a decoder among it, and without the norm that they have.
    """
    require_plain(checkpoint, OURS, "timm's VisionTransformer")
    require_norm(checkpoint, "timm's VisionTransformer")
    return {re.sub(r"gamma_([12])$", r"ls\1.gamma", name): tensor for name, tensor in checkpoint.state.items()}


def require_plain(checkpoint: Checkpoint, names: re.Pattern[str], model: str) -> None:
    """Raise ValueError where `model`, whose parameters are `names`, computes something else than these weights do."""
    if homeless := [name for name in checkpoint.state if not names.fullmatch(name)]:
        norm = any(name.startswith("norm.") for name in checkpoint.state)  # --encoder-only keeps no fc_norm
        encoder = norm and all(DECODER.fullmatch(name) or HEAD.fullmatch(name) for name in homeless)
        way_out = "leave decoder and head out (--encoder-only)" if encoder else "write another format; `own` takes all"
        raise ValueError(
            f"{checkpoint.path}: {model} has no place for {len(homeless)} tensors: {listed(homeless)}; {way_out}."
        )
    if window := checkpoint.architecture.window_size:
        raise ValueError(
            f"{checkpoint.path}: the blocks attend within windows of {window} patches, and {model} has none; "
            "write another format, as `own`."
        )


def require_norm(checkpoint: Checkpoint, model: str) -> None:
    """Raise ValueError where `model`, which has either `norm` or `fc_norm`, would not find the one or not want both."""
    found = [name for name in ("norm", "fc_norm") if f"{name}.weight" in checkpoint.state]
    if len(found) != 1:
        raise ValueError(
            f"{checkpoint.path}: has {'both' if found else 'neither'} norm {'and' if found else 'nor'} fc_norm, and "
            f"{model} needs one of them (a fine-tuned file keeps its fc_norm without --encoder-only); write another "
            "format, as `own`."
        )


def _ours(name: str) -> str:
    """Return our name, or an empty one for what timm's plain ViT has not, though another family of ours may."""
    new = re.sub(r"ls([12])\.gamma$", r"gamma_\1", name)
    return new if READ.fullmatch(new) else ""


def _place(name: str) -> Place | None:
    """Return where a part of a joined tensor belongs, None for a tensor that is whole."""
    if not (found := _PART.fullmatch(name)):
        return None
    block, qkv, gate, leaf = found.groups()
    if qkv:
        return f"{block}attn.qkv.{leaf}", "qkv".index(qkv), 3
    return f"{block}mlp.fc1.{leaf}", "gx".index(gate), 2


SOURCE = Source(
    name="timm",
    title="timm vit_* and deit*, DeiT's own files",
    entries=("model", "state_dict"),
    rename=rename,
    beside=beside,
    complete=complete,
    restore=restore,
    written_as="safetensors",
    normalisation=None,
)
