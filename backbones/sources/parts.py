"""Tensors that are several in a file and one here: queries, keys and values; a gate and what it gates."""

from collections.abc import Callable, Mapping

from torch import Tensor

from backbones.sources.source import join

Place = tuple[str, int, int]  # our name, which part of that tensor, of how many
BIAS = "attn.qkv.bias"


def join_parts(
    tensors: Mapping[str, Tensor], place: Callable[[str], Place | None], *, keys_without_bias: bool = False
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the tensors with those that have a place under our names, parts joined, and those names of ours.

    What has no place keeps its name. Where keys may be `keys_without_bias`, the biases of queries and values alone
    become BEiT's two. Raises ValueError for parts that are absent or there twice.
    """
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, int], dict[int, tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        placed = place(name)
        if placed is None:
            found[name] = tensor
            continue
        ours, part, of = placed
        if part in (held := parts.setdefault((ours, of), {})):
            raise ValueError(f"{name} and {held[part][0]} are the same part of {ours}; the file mixes two versions.")
        held[part] = (name, tensor)
    known: set[str] = set()
    for (ours, of), held in parts.items():
        if keys_without_bias and ours.endswith(BIAS) and held.keys() == {0, 2}:
            block = ours.removesuffix("qkv.bias")
            made = {f"{block}q_bias": held[0][1], f"{block}v_bias": held[2][1]}
        elif len(held) == of:
            made = {ours: held[0][1] if of == 1 else join(ours, dict(held[part] for part in range(of)))}
        else:
            names = ", ".join(name for name, _ in held.values())
            raise ValueError(f"{ours} cannot be joined: of {of} parts there are {len(held)} in the file ({names}).")
        found |= made
        known |= made.keys()
    return found, known
