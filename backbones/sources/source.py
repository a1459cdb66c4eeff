"""What a family of checkpoints tells of itself: where its tensors lie, and their names to and from ours.

Our names are those of the official MAE code; `OURS` is their grammar. A source renames and never resizes: that is
backbones/loading.py's, when the size of the ViT is known.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from backbones.checkpoint import IMAGENET, Checkpoint, Normalisation
from backbones.sources.architecture import HEADS

FileFormat = Literal["safetensors", "pytorch", "numpy", "pickle"]

_WB = r"(weight|bias)"
_BLOCK = rf"((norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}|attn\.(q_bias|v_bias)|gamma_[12])"
_RELATIVE = r"attn\.(rel_pos_h|rel_pos_w|relative_position_bias_table)"
ENCODER = re.compile(
    rf"cls_token|dist_token|pos_embed|patch_embed\.proj\.{_WB}|blocks\.\d+\.({_BLOCK}|{_RELATIVE})|norm\.{_WB}"
    r"|(window_)?rel_pos_bias\.relative_position_bias_table"
)
DECODER = re.compile(
    rf"mask_token|decoder_pos_embed|(decoder_embed|decoder_norm|decoder_pred)\.{_WB}|decoder_blocks\.\d+\.{_BLOCK}"
)
HEAD = re.compile(rf"(fc_norm|head|head_dist)\.{_WB}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Renamed:
    """The tensors of a foreign file in our names."""

    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
    """`name: rule` of those that have none."""
    normalisation: Normalisation | None = None
    """Where the file tells it apart from the family's usual one."""
    num_heads: int | None = None
    """Where the file tells it."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels, where the file tells it."""
    notes: tuple[str, ...] = ()
    """What was concluded, or added to make the file an ordinary ViT."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One family of checkpoints."""

    name: str
    """As --init-source and --source take it."""
    title: str
    """One line for people: whose files, which kinds."""
    entries: tuple[str, ...]
    """Nested entries of the file that may hold the weights, in the order they are looked for."""
    rename: Callable[[Mapping[str, Tensor]], Renamed]
    """Raises ValueError for a name that the family does not have."""
    beside: Callable[[Renamed, Path], Renamed] | None = None
    """Adds what files beside the one of this path tell; None where the family has no such files."""
    restore: Callable[[Checkpoint], dict[str, Tensor]] | None = None
    """The state under the family's names, as its own code loads it strictly; None where nothing writes it."""
    written_as: FileFormat = "pytorch"
    """The format that the family's own code reads."""
    written_entry: str = ""
    """The entry of that file that holds the weights, empty for the top level."""
    normalisation: Normalisation = IMAGENET
    """What the family's pixels are normalised with."""
    heads: Mapping[int, int] = field(default_factory=lambda: HEADS)
    """Attention heads of the family's ViTs by width, where neither the file nor the user tells."""


def rename_each(
    tensors: Mapping[str, Tensor], ours: Callable[[str], str], *, drop: Iterable[tuple[str, str]] = ()
) -> Renamed:
    """Return every tensor under the name that `ours` gives it; `drop` has pairs of a regular expression and a rule.

    Raises ValueError for names that are neither dropped nor, renamed, names of ours, and for two that become one.
    """
    rules = [(re.compile(pattern), rule) for pattern, rule in drop]
    state: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for name, tensor in tensors.items():
        rule = next((rule for pattern, rule in rules if pattern.fullmatch(name)), None)
        if rule is not None:
            dropped.append(f"{name}: {rule}")
            continue
        new = ours(name)
        if not is_ours(new):
            unknown.append(name)
        elif new in state:
            raise ValueError(f"{name} becomes {new}, and so does another tensor; the file mixes two spellings.")
        else:
            state[new] = tensor
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} names do not belong to this kind of file: {listed(unknown)}; "
            "`python tools/convert_checkpoint.py inspect FILE` says what it looks like."
        )
    return Renamed(state=state, dropped=tuple(dropped))


def is_ours(name: str) -> bool:
    """True for a name of a parameter of our ViT, MAE's decoder or a classification head."""
    return any(grammar.fullmatch(name) for grammar in (ENCODER, DECODER, HEAD))


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return the first few names and how many more there are."""
    found = sorted(names)
    rest = f", and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest if found else "none"
