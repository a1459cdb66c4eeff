"""I-JEPA's files (arXiv 2301.08243, facebookresearch/ijepa): training checkpoints with two encoders and a predictor.

The names are ours behind `module.`. The target encoder, a moving average of the context encoder, is what I-JEPA
publishes and evaluates (section 4 and appendix A.1), and what is taken; `encoder`, `predictor` and the optimiser are
left out. There is no class token. The position table is a fixed sin-cos one and loaded as it is.

At another size than that of pre-training I-JEPA's own code takes the first row of the table for a class token that is
not there, and keeps it. Here the whole table is resampled.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from backbones.sources.source import Renamed, Source, rename_each, whole
from backbones.sources.timm import PLAIN_BLOCK, require_norm, require_plain
from backbones.weights.checkpoint import Checkpoint

_WB = r"(weight|bias)"
ENCODER = re.compile(rf"pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.({PLAIN_BLOCK})|norm\.{_WB}")
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # by width: vision_transformer.py of ijepa


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the target encoder's tensors.

    Raises ValueError for a name that I-JEPA's ViT does not have, and without a position table.
    """
    return whole(rename_each(tensors, lambda name: name if ENCODER.fullmatch(name) else ""), "pos_embed")


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as I-JEPA's `VisionTransformer` loads it strictly, behind the `module.` of its checkpoints.

    Raises ValueError for what it has no place for.
    """
    require_plain(checkpoint, ENCODER, "I-JEPA's ViT")
    require_norm(checkpoint, "I-JEPA's ViT")
    return {f"module.{name}": tensor for name, tensor in checkpoint.state.items()}


SOURCE = Source(
    name="ijepa",
    title="I-JEPA: the target encoder of training checkpoints",
    entries=("target_encoder",),
    rename=rename,
    restore=restore,
    written_entry="target_encoder",
    heads=HEADS,
)
