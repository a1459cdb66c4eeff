"""Files of the official MAE code (arXiv 2111.06377, facebookresearch/mae) and of runs of it.

Our names are its names. There are four kinds: pre-trained (encoder alone), full and visualize (with the decoder),
fine-tuned with global pooling (`fc_norm` in place of `norm`, and `head`), and linear probes (`norm`, and a head with a
batch norm, which has no name here). Runs of one's own (`checkpoint-N.pth`) hold the optimiser beside them. A fine-tuned
file has no final norm, so a ViT that has one refuses it.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from backbones.sources.source import Renamed, Source, check_decoder, rename_each, whole
from backbones.sources.timm import PLAIN, PLAIN_BLOCK, require_norm, require_plain
from backbones.weights.checkpoint import Checkpoint

_DECODER = rf"(decoder_embed|decoder_norm|decoder_pred)\.(weight|bias)|decoder_blocks\.\d+\.{PLAIN_BLOCK}"
OFFICIAL = re.compile(rf"{PLAIN}|mask_token|decoder_pos_embed|{_DECODER}")
_NEEDED = {"cls_token": "class token", "pos_embed": "position table"}
DROP = ((r"head\.\d+\..*", "the head of a linear probe, behind a batch norm"),)


def rename(tensors: Mapping[str, Tensor]) -> Renamed:
    """Return the official tensors.

    Raises ValueError for a name that the official code does not have, and for one absent that all its files have.
    """
    renamed = rename_each(tensors, lambda name: name if OFFICIAL.fullmatch(name) else "", drop=DROP)
    return whole(renamed, *_NEEDED)


def restore(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the state as the official models load it strictly, `models_mae` where there is a decoder.

    Raises ValueError for what they have no place for, and without what they all have: class token, positions, a norm.
    """
    check_decoder(checkpoint.path, checkpoint.state)
    require_plain(checkpoint, OFFICIAL, "the official MAE model")
    if missing := [what for name, what in _NEEDED.items() if name not in checkpoint.state]:
        raise ValueError(
            f"{checkpoint.path}: has no {' and no '.join(missing)}, and the official MAE model needs one; "
            "write another format."
        )
    require_norm(checkpoint, "the official MAE model")
    return dict(checkpoint.state)


SOURCE = Source(
    name="mae",
    title="official MAE: pre-trained, full, visualize, fine-tuned, runs of its code",
    entries=("model", "state_dict"),
    rename=rename,
    restore=restore,
    written_entry="model",
)
