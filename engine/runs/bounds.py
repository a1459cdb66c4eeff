"""A record of somebody else asks for a model: none that its checkpoint cannot hold is built."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

BYTES = 4  # of a parameter in a checkpoint: it holds float32


def refuse_beyond(config: Any, checkpoint: Path, source: Path) -> None:
    """Raise ValueError where the model of `config`, which `source` states, has more parameters than `checkpoint` holds.

    To be called before the model is built: it would take memory that nobody measured.
    """
    size = checkpoint.stat().st_size
    for place, least in _parts("config", config):
        if BYTES * least > size:
            raise ValueError(
                f"{source}: {place} asks for {_count(least)} parameters or more, and {checkpoint.name} has {size:,} "
                f"bytes, which hold {size // BYTES:,} at most; the record is not of this checkpoint or was changed, or "
                "the checkpoint is cut off."
            )


def _parts(place: str, config: Any) -> Iterator[tuple[str, int]]:
    """Yield where a part of the configuration stands and how many parameters it has at least."""
    has = {f.name for f in fields(config)}
    if {"embed_dim", "depth", "patch_size"} <= has:
        yield place, _vit(config)
    if {"decoder_dim", "decoder_depth"} <= has:  # MAE's
        yield f"{place}.decoder_dim", 12 * config.decoder_dim**2 * config.decoder_depth
    if {"vocabulary", "code_dim", "width"} <= has:  # of a tokenizer: codebook, logits, a convolution
        yield place, config.vocabulary * (config.code_dim + config.width) + 9 * config.width**2
    if {"hidden", "width"} <= has:  # MoCo v3's projector
        yield f"{place}.hidden", config.hidden**2 + config.hidden * config.width
    for name in sorted(has):
        if is_dataclass(value := getattr(config, name)):
            yield from _parts(f"{place}.{name}", value)


def _vit(a: Any) -> int:
    """Return the weights of the blocks, of the patch projection and of the table of positions."""
    blocks = a.depth * (4 * a.embed_dim**2 + 2 * a.embed_dim * a.mlp_width)
    table = a.grid[0] * a.grid[1] * a.embed_dim if a.position == "learned" else 0
    return int(blocks + a.in_chans * a.patch_size**2 * a.embed_dim + table)


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**18 else f"10^{len(str(number)) - 1}"
