"""Names without what training code wraps around a ViT: torch.compile, DistributedDataParallel, Lightning, a backbone.

Only what all names of a file share is taken off, so a prefix never decides which of two networks is read.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from backbones.sources.source import Renamed, listed

COMPILED = "_orig_mod"  # torch.compile's, of the whole model or of a part in the middle of a name
OUTER = ("module.", "model.")  # DistributedDataParallel's and AveragedModel's; Lightning's by custom. No family's.
INNER = ("backbone.", "encoder.")  # some families' own: taken off where the names are not the family's with it
COUNTER = "n_averaged"  # AveragedModel's, beside `module.`


def rename_unwrapped(rename: Callable[[Mapping[str, Tensor]], Renamed], tensors: Mapping[str, Tensor]) -> Renamed:
    """Return what `rename` makes of the tensors without their wrappers, in any nesting.

    Raises ValueError as `rename` does of the names with INNER kept, and where two names become one.
    """
    plain = _without_outer(_without_compiled(tensors))
    try:
        return rename(plain)
    except ValueError as error:
        inner = _without_shared(plain, INNER)
        while inner is not plain:
            plain = _without_outer(inner)
            try:
                return rename(plain)
            except ValueError:
                inner = _without_shared(plain, INNER)
        raise ValueError(f"{error}{_hint(tensors)}") from error


def _without_compiled(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    new: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part != COMPILED)
        if short in new:
            raise ValueError(f"{name} is there with {COMPILED} (torch.compile) and without; keep one of them.")
        new[short] = tensor
    return new


def _without_outer(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    shorter = _without_shared(tensors, OUTER)
    while shorter is not tensors:
        tensors, shorter = shorter, _without_shared(shorter, OUTER)
    return tensors


def _without_shared(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> Mapping[str, Tensor]:
    """Return the tensors without the one of the prefixes that all names have, the same mapping where there is none."""
    for prefix in prefixes:
        rest = [name for name in tensors if not name.startswith(prefix)]
        if tensors and (not rest or (rest == [COUNTER] and prefix == "module." and len(tensors) > 1)):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name not in rest}
    return tensors


def _hint(tensors: Mapping[str, Tensor]) -> str:
    """Return what to do where a wrapper's prefix is that of some names and not of others."""
    for prefix in (*OUTER, *INNER):
        others = [name for name in tensors if not name.startswith(prefix)]
        if others and 2 * len(others) < len(tensors):
            return (
                f" {len(tensors) - len(others)} names begin with {prefix!r} and {len(others)} do not "
                f"({listed(others, most=3)}): save the state_dict() of that part alone."
            )
    return ""
