"""BEiT's files (arXiv 2106.08254, microsoft/unilm) and those of BEiT v2 (arXiv 2208.06366): pre-trained and fine-tuned.

Both have q_bias and v_bias, a layer scale, and in place of a position table relative positions: one table for all
blocks after pre-training (with `norm`), one in every block after fine-tuning (with `fc_norm` and `head`, without
`norm`). The published files of BEiT (pt22k, ft22k, ft22kto1k) take pixels at mean and std 0.5, those of BEiT v2 at
ImageNet's constants (its PRETRAINING.md and timm's entries). The name of a published file tells which, and so does
timm's config.json beside it; of any other file mean and std must be declared.

BEiT v2's pre-training has two blocks more, which take the class token of the last block and the patches of an early
one (section 3.3). They serve the loss alone and are dropped, as its fine-tuning does.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.relative_position import table_index
from backbones.sources.source import POSITIONS, Renamed, Source, rename_each, whole
from backbones.sources.timm import require_norm, require_plain
from backbones.sources.timm_config import beside
from backbones.weights.checkpoint import Checkpoint

_WB = r"(weight|bias)"
_TABLE = r"relative_position_bias_table"
_BLOCK = rf"(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}|attn\.(qkv\.weight|q_bias|v_bias|{_TABLE})|gamma_[12]"
BEIT = re.compile(
    rf"cls_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.({_BLOCK})|rel_pos_bias\.{_TABLE}"
    rf"|(norm|fc_norm|head)\.{_WB}"
)
WRITABLE = re.compile(rf"{BEIT.pattern}|blocks\.\d+\.attn\.qkv\.bias")
DROP = (
    (r"(rel_pos_bias|blocks\.\d+\.attn)\.relative_position_index", "an index, made anew for every grid"),
    (r"mask_token", "BEiT's token for masked patches"),
    (rf"(cls_pt_)?lm_head\.{_WB}", "the head of pre-training"),
    (
        r"cls_pt_(layers\.\d+|norm)\..*",
        "BEiT v2's blocks behind the class token, which serve the loss of pre-training alone",
    ),
)


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return BEiT's tensors, whose names are ours.

    Raises ValueError for a name that BEiT does not have, and without class token or positions.
    """
    renamed = rename_each(tensors, lambda name: name if BEIT.fullmatch(name) else "", drop=DROP)
    return whole(renamed, "cls_token", POSITIONS)


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as unilm's `VisionTransformer` loads it strictly, with the index buffers that it registers.

    One bias for queries, keys and values becomes BEiT's two: that of the keys adds the same to every score of a query,
    which softmax does not see. Raises ValueError for what BEiT has no place for, and without a class token.
    """
    require_plain(checkpoint, WRITABLE, "BEiT")
    if "cls_token" not in checkpoint.state:
        raise ValueError(f"{checkpoint.path}: has no class token, and BEiT needs one; write another format, as `own`.")
    require_norm(checkpoint, "BEiT")
    state: dict[str, Tensor] = {}
    for name, tensor in checkpoint.state.items():
        if name.endswith("attn.qkv.bias"):
            block = name.removesuffix("qkv.bias")
            state[f"{block}q_bias"], _, state[f"{block}v_bias"] = tensor.chunk(3)
            continue
        state[name] = tensor
        if name.endswith(_TABLE):
            state[f"{name.removesuffix(_TABLE)}relative_position_index"] = table_index(
                checkpoint.architecture.relative_grid, class_token=True, device=torch.device("cpu")
            )
    return state


SOURCE = Source(
    name="beit",
    title="BEiT of unilm: pre-trained (pt22k) and fine-tuned (ft22k, ft22kto1k); BEiT v2, alike; timm's of both",
    entries=("model", "module", "state_dict"),
    rename=rename,
    beside=beside,
    restore=restore,
    written_entry="model",
    normalisation=None,
)
