"""From a weights file of a declared source to a Checkpoint in our names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backbones.checkpoint import FORMAT, Checkpoint
from backbones.sources import SOURCES
from backbones.sources.architecture import infer_architecture
from backbones.sources.own import read_own
from backbones.weight_files import read_weight_file

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the user says of a weights file; nothing of it is guessed."""

    source: str = "own"
    """Family of the file: own, mae, timm, beit, ..."""
    num_heads: int | None = None
    """Attention heads, where neither the file nor a published width tells."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that the position table was made for, where it is not square."""
    trust_pickle: bool = False
    """Read a pickle, which can run any code while it is read."""


def read_checkpoint(path: Path, declared: Declared | None = None) -> Checkpoint:
    """Return the weights in `path`. Raises FileNotFoundError, or ValueError where it is not what was declared."""
    declared = declared or Declared()
    if declared.source not in SOURCES:
        raise ValueError(f"no source is called {declared.source!r}; there are: {', '.join(sorted(SOURCES))}.")
    source = SOURCES[declared.source]
    file = read_weight_file(path, entries=source.entries, trust_pickle=declared.trust_pickle)
    if source.name == "own":
        return read_own(file)
    if FORMAT in file.metadata:
        raise ValueError(f"{path}: its header says that it is one of ours; declare source 'own', not {source.name!r}.")
    try:
        renamed = source.rename(file.tensors)
        if source.beside:
            renamed = source.beside(renamed, path)
        architecture, notes = infer_architecture(
            renamed.state,
            num_heads=_agreed("num_heads", declared.num_heads, renamed.num_heads),
            usual_heads=source.heads,
            image_size=_agreed("image_size", declared.image_size, renamed.image_size),
        )
    except ValueError as error:
        raise ValueError(f"{path}: read as source {source.name!r} ({source.title}): {error}") from error
    return Checkpoint(
        path=path,
        digest=file.digest,
        state=renamed.state,
        architecture=architecture,
        source=source.name,
        normalisation=renamed.normalisation or source.normalisation,
        dropped=renamed.dropped + tuple(f"{name}: not the entry of the weights" for name in file.others),
        notes=renamed.notes + notes,
    )


def _agreed(name: str, declared: T | None, found: T | None) -> T | None:
    """Return what is declared or what the file tells. Raises ValueError where the two differ."""
    if declared is not None and found is not None and declared != found:
        raise ValueError(f"{name} was declared as {declared}, and the file tells {found}; leave the declaration out.")
    return found if declared is None else declared
