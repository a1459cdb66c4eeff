"""detectron2's ViTDet files (arXiv 2203.16527): the published `.pkl` and `.pth`, and training checkpoints.

The ViT lies under `backbone.net.` with our names; pyramid, proposals and heads are dropped. Its ViT has no class token
and no final norm, but its position table keeps the row of the class token that it started from. That row is dropped,
and put back as zeros on the way out, where `ViT` skips it. Windows and global blocks are concluded from the lengths of
`rel_pos_h` and `rel_pos_w`; a file without them does not tell that it had windows, which are then the recipe's. Blocks
with a residual convolution (`residual_block_indexes`) have no place here and are refused. Pixels go from 0 to 255 there
and are RGB in ViTDet's configs; their mean and std are ImageNet's unless the file holds others. detectron2's
older default is BGR: where the mean in the file is ImageNet's in that order, the patch projection is turned to RGB.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from backbones.sources.source import DECODER, HEAD, KERNEL, Renamed, Source, listed, rename_each, whole
from backbones.sources.timm import PLAIN_BLOCK
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.normalisation import Normalisation

NET = "backbone.net."
ENCODER = re.compile(
    rf"pos_embed|patch_embed\.proj\.(weight|bias)|blocks\.\d+\.({PLAIN_BLOCK}|attn\.rel_pos_[hw])",
)
DROP = (
    (r"backbone\.simfp_\d\..*", "the feature pyramid, of another task"),
    (r"proposal_generator\..*", "the proposals of the detector"),
    (r"roi_heads\..*", "the heads of the detector"),
    (r"pixel_(mean|std)", "pixel statistics, read as the normalisation"),
)
# red, green, blue of 0 to 255: ImageNet's, within which Caffe's (122.8, 115.9, 103.0) lie, too
_RGB_MEAN, _RGB_WITHIN = (123.675, 116.28, 103.53), 1.0
# what a class token and a final norm leave behind in weights that come from elsewhere
_UNUSED = re.compile(r"cls_token|dist_token|norm\.(weight|bias)")


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors of the ViT in our names.

    Raises ValueError for a name that ViTDet does not have, and without positions of any kind.
    """
    renamed = _with_pixels(rename_each(tensors, _ours, drop=DROP), tensors)
    table_1PD = renamed.state.get("pos_embed")
    if table_1PD is None:
        renamed = whole(renamed, ("pos_embed", "blocks.0.attn.rel_pos_h"), norm=False)
        return replace(renamed, notes=(*renamed.notes, "pos_embed: none (use_abs_pos=False); relative positions alone"))
    rows = table_1PD.shape[1]
    if math.isqrt(rows) ** 2 == rows:  # pretrain_use_cls_token=False; a square is never one above another
        return renamed
    if math.isqrt(rows - 1) ** 2 != rows - 1:
        raise ValueError(
            f"pos_embed has {rows} rows, which is no square, and no square plus 1 for the class token; the table of "
            "detectron2's ViT is square."
        )
    return replace(
        renamed,
        state={**renamed.state, "pos_embed": table_1PD[:, 1:]},
        dropped=(*renamed.dropped, "pos_embed row 0: of the class token, which detectron2's ViT has not"),
    )


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state under `backbone.net.`, as detectron2's `ViT` loads it strictly without that prefix.

    Class token, distillation token and final norm are left out, as detectron2 does when it starts from MAE's file.
    Raises ValueError for what its ViT has no place for (layer scale, BEiT's biases and tables, a decoder, a head).
    """
    state = {name: tensor for name, tensor in checkpoint.state.items() if not _UNUSED.fullmatch(name)}
    if homeless := [name for name in state if not ENCODER.fullmatch(name)]:
        extra = any(DECODER.fullmatch(name) or HEAD.fullmatch(name) for name in homeless)
        way_out = "leave decoder and head out (--encoder-only)" if extra else "write another format; `own` takes all"
        raise ValueError(
            f"{checkpoint.path}: detectron2's ViT has no place for {len(homeless)} tensors: {listed(homeless)}; "
            f"{way_out}."
        )
    if "pos_embed" in state:
        rows, columns = checkpoint.architecture.grid
        if rows != columns:
            raise ValueError(
                f"{checkpoint.path}: the position table is for {rows} x {columns} patches, and that of detectron2's "
                "ViT is square; resample it with --resize-to."
            )
        table_1PD = state["pos_embed"]
        row_11D = table_1PD[:, :1] if checkpoint.num_prefix_positions else torch.zeros_like(table_1PD[:, :1])
        state["pos_embed"] = torch.cat([row_11D, table_1PD[:, checkpoint.num_prefix_positions :]], dim=1)
    return {f"{NET}{name}": tensor for name, tensor in state.items()}


def _with_pixels(renamed: Renamed, tensors: Mapping[str, Tensor]) -> Renamed:
    """Return it with the mean and std of the file's pixels, if it holds them, and its channels in RGB order."""
    found = [name for name in ("pixel_mean", "pixel_std") if name in tensors]
    if not found or KERNEL not in renamed.state:
        return renamed
    if len(found) == 1:
        raise ValueError(f"the file holds {found[0]} alone; pixels are normalised by pixel_mean and pixel_std.")
    mean, std = (tensors[name].double().flatten() for name in found)
    kernel = renamed.state[KERNEL]
    if len(mean) != kernel.shape[1]:
        raise ValueError(f"pixel_mean has {len(mean)} values, and the patch projection {kernel.shape[1]} channels.")
    bgr = mean.new_tensor(_RGB_MEAN[::-1])
    if len(mean) == len(bgr) and bool((mean - bgr).abs().max() < _RGB_WITHIN):
        mean, std = mean.flip(0), std.flip(0)
        renamed = replace(
            renamed,
            state={**renamed.state, KERNEL: kernel.flip(1)},
            notes=(*renamed.notes, f"{KERNEL}: channels turned from BGR, which pixel_mean shows, to RGB"),
        )
    return replace(renamed, normalisation=Normalisation(tuple((mean / 255).tolist()), tuple((std / 255).tolist())))


def _ours(name: str) -> str:
    """Return our name, or an empty one for what detectron2's ViT has not, though another family of ours may."""
    if not name.startswith(NET):
        return ""
    new = name.removeprefix(NET)
    return new if ENCODER.fullmatch(new) else ""


SOURCE = Source(
    name="detectron2",
    title="detectron2 ViTDet: published .pkl (with --trust-pickle) and .pth, training checkpoints",
    entries=("model", "state_dict"),
    rename=rename,
    restore=restore,
    written_entry="model",
)
