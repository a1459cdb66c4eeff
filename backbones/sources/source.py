"""What a family of checkpoints tells of itself: where its tensors lie, and their names to and from ours.

Our names are those of the official MAE code; `OURS` is their grammar. A source renames and never resizes: that is
backbones/weights/loader.py's, when the size of the ViT is known.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from backbones.config import ViTConfig
from backbones.sources.architecture import HEADS
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.normalisation import IMAGENET, Normalisation

# any of these makes positions known to a ViT of BEiT's kind
POSITIONS = (
    "pos_embed",
    "rel_pos_bias.relative_position_bias_table",
    "blocks.0.attn.relative_position_bias_table",
)
BEIT_ALONE = ("gamma_1", "q_bias", "relative_position_bias_table")  # ends of names that no plain ViT has
KERNEL = "patch_embed.proj.weight"
NORMS = ("norm.weight", "fc_norm.weight")
T = TypeVar("T")
FileFormat = Literal["safetensors", "pytorch", "numpy", "pickle"]

_WB = r"(weight|bias)"
_BLOCK = rf"((norm1|norm2|attn\.(qkv|norm|proj)|mlp\.(fc1|norm|fc2))\.{_WB}|attn\.(q_bias|v_bias)|gamma_[12])"
_RELATIVE = r"attn\.(rel_pos_h|rel_pos_w|relative_position_bias_table)"
ENCODER = re.compile(
    rf"cls_token|dist_token|reg_token|pos_embed|patch_embed\.(proj|norm)\.{_WB}|blocks\.\d+\.({_BLOCK}|{_RELATIVE})|(norm|norm_pre)\.{_WB}"
    r"|(window_)?rel_pos_bias\.relative_position_bias_table"
)
DECODER = re.compile(
    rf"mask_token|decoder_pos_embed|(decoder_embed|decoder_norm|decoder_pred)\.{_WB}|decoder_blocks\.\d+\.{_BLOCK}"
)
HEAD = re.compile(rf"(fc_norm|head|head_dist)\.{_WB}")
SUGGESTION = "`python tools/convert_checkpoint.py inspect FILE` says what it looks like."
# axes of a tensor by the end of its name, the first that fits
_AXES = (
    (re.compile(r"(cls_token|dist_token|reg_token|mask_token|pos_embed)$"), 3),
    (re.compile(r"patch_embed\.proj\.weight$"), 4),
    (re.compile(r"rel_pos_[hw]$|relative_position_bias_table$"), 2),
    (re.compile(r"norm(\d|_pre)?\.weight$|bias$|gamma_[12]$"), 1),
    (re.compile(r"weight$"), 2),
)


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
    untold: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ViTConfig` that no tensor shows, where something beside the tensors tells them."""
    ambiguous: str = ""
    """Why the tensors may be of another model than a plain ViT, where nothing beside them tells which."""
    notes: tuple[str, ...] = ()
    """What was concluded, or added to make the file an ordinary ViT."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One family of checkpoints."""

    name: str
    """As --init-source takes it."""
    title: str
    """One line for people: whose files, which kinds."""
    entries: tuple[str, ...]
    """Nested entries of the file that may hold the weights, in the order they are looked for."""
    rename: Callable[[Mapping[str, Tensor]], Renamed]
    """Raises ValueError for a name that the family does not have."""
    beside: Callable[[Renamed, Path], Renamed] | None = None
    """Adds what files beside the one of this path tell; None where the family has no such files."""
    complete: Callable[[Renamed, tuple[int, int] | None], Renamed] | None = None
    """Adds what only the image size in pixels tells, which is None where no one does; None where nothing is to add."""
    restore: Callable[[Checkpoint], dict[str, Tensor]] | None = None
    """The state under the family's names, as its own code loads it strictly; None where nothing writes it."""
    written_as: FileFormat = "pytorch"
    """The format that the family's own code reads."""
    written_entry: str = ""
    """The entry of that file that holds the weights, empty for the top level."""
    normalisation: Normalisation | None = IMAGENET
    """What the family's pixels are normalised with; None where its files differ, so that one must be told."""
    heads: Mapping[int, int] = field(default_factory=lambda: HEADS)
    """Attention heads of the family's ViTs by width, where neither the file nor the user tells."""


def rename_each(
    tensors: Mapping[str, Tensor], ours: Callable[[str], str], *, drop: Iterable[tuple[str, str]] = ()
) -> Renamed:
    """Return every tensor under the name that `ours` gives it; `drop` has pairs of a regular expression and a rule.

    Raises ValueError for names that are neither dropped nor, renamed, names of ours, for two that become one, and for
    tensors with other axes than such a name has.
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
            f"{SUGGESTION}"
        )
    check_axes(state)
    return Renamed(state=state, dropped=tuple(dropped))


def whole(renamed: Renamed, *needed: str | tuple[str, ...], norm: bool = True) -> Renamed:
    """Return it where every tensor is there that all files of the family have; of a tuple one is enough.

    A ViT without its class token or its positions could be built, and would compute something else than the weights
    were trained for: ValueError. A final norm has no such effect, since a task that has one refuses weights without:
    where `norm` says that the family has one, its absence is noted.
    """
    if KERNEL not in renamed.state:
        return renamed  # refused later, as no ViT at all
    for names in needed:
        either = (names,) if isinstance(names, str) else names
        if not any(name in renamed.state for name in either):
            raise ValueError(
                f"there is no {' and no '.join(either)}, which every file of this family has; the file is not whole, "
                "or of another family."
            )
    if not norm or any(name in renamed.state for name in NORMS):
        return renamed
    absent = "norm: the file has neither norm nor fc_norm; only tasks without a final norm can take it"
    return replace(renamed, notes=(*renamed.notes, absent))


def check_axes(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors, in our names, of other axes, without a number in them, or of whole numbers."""
    wrong = []
    for name, tensor in state.items():
        axes = next(axes for pattern, axes in _AXES if pattern.search(name))
        if tensor.ndim != axes:
            wrong.append(f"{name} has the shape {tuple(tensor.shape)}, not {axes} axes")
        elif not tensor.numel():
            wrong.append(f"{name} has the shape {tuple(tensor.shape)}, without a number in it")
        elif not tensor.is_floating_point():
            wrong.append(f"{name} is of {tensor.dtype}, and a parameter is a fraction; it may be quantised")
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are not shaped as their names say: {listed(wrong)}.")


def join(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    """Return queries, keys and values, or two of them, as one tensor. Raises ValueError where their shapes differ."""
    shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
    if len(set(shapes.values())) != 1 or () in shapes.values():
        raise ValueError(f"{name} cannot be joined: {shapes} are the shapes of its parts.")
    return torch.cat(list(parts.values()))


def check_whole(state: Mapping[str, Tensor], architecture: ViTConfig) -> None:
    """Raise ValueError where the encoder is not whole: a tensor is absent, too many, or of another shape.

    `state` has our names; class token and final norm are there or not, decoder and head are not looked at.
    """
    found = {name: tensor for name, tensor in state.items() if ENCODER.fullmatch(name)}
    blocks = {name.split(".")[1] for name in found if name.startswith("blocks.")}
    if len(blocks) != architecture.depth:  # before a header makes us build a million blocks
        raise ValueError(f"the weights have {len(blocks)} blocks, and the architecture says {architecture.depth}.")
    try:
        wanted = _parameters(architecture, class_token="cls_token" in found, final_norm="norm.weight" in found)
    except (RuntimeError, TypeError, OverflowError) as error:  # of a table with more rows than can be counted
        raise ValueError(f"no ViT can be so large: {architecture}.") from error
    missing, unexpected, shapes = differences(found, wanted)
    if missing or unexpected or shapes:
        raise ValueError(
            f"the weights of the encoder are not whole. Missing {len(missing)} ({listed(missing)}); "
            f"unexpected {len(unexpected)} ({listed(unexpected)}); other shape {len(shapes)} ({listed(shapes)})."
        )


def check_decoder(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError, for weights that are to be written, where a decoder in `state` is not whole.

    Reading passes it over, since every task leaves the decoder out.
    """
    found = {name: tensor for name, tensor in state.items() if DECODER.fullmatch(name)}
    if not found:
        return
    depth = len({name.split(".")[1] for name in found if name.startswith("decoder_blocks.")})
    layers = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    parts = [f"decoder_blocks.{i}.{layer}" for i in range(max(1, depth)) for layer in layers]
    parts += ["decoder_embed", "decoder_norm", "decoder_pred"]
    needed = {"mask_token", "decoder_pos_embed", *(f"{part}.{leaf}" for part in parts for leaf in ("weight", "bias"))}
    if absent := needed - found.keys():
        raise ValueError(
            f"{path}: its decoder is not whole: {len(absent)} tensors are absent ({listed(absent)}); leave it out "
            "(--encoder-only), or take another copy."
        )


@lru_cache(maxsize=8)  # 24 ms for ViT-L, and a run reads its file more than once
def _parameters(architecture: ViTConfig, *, class_token: bool, final_norm: bool) -> Mapping[str, Tensor]:
    with torch.device("meta"):  # shapes alone: no memory and no arithmetic
        return ViT(architecture, class_token=class_token, final_norm=final_norm).state_dict()


def differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[set[str], set[str], list[str]]:
    """Return the names that are missing, those that are too many, and `name shape for shape` of those that differ."""
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(wanted[name].shape)}"
        for name in found.keys() & wanted.keys()
        if found[name].shape != wanted[name].shape
    ]
    return wanted.keys() - found.keys(), found.keys() - wanted.keys(), shapes


def agreed(name: str, declared: T | None, found: T | None) -> T | None:
    """Return what is declared or what the file tells. Raises ValueError where the two differ."""
    if declared is not None and found is not None and declared != found:
        raise ValueError(f"{name} was declared as {declared}, and the file tells {found}; leave the declaration out.")
    return found if declared is None else declared


def is_ours(name: str) -> bool:
    """True for a name of a parameter of our ViT, MAE's decoder or a classification head."""
    return any(grammar.fullmatch(name) for grammar in (ENCODER, DECODER, HEAD))


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return the first few names and how many more there are."""
    found = sorted(names)
    rest = f", and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest if found else "none"
