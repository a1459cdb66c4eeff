"""This project's own backbone.safetensors: the header says everything."""

from backbones.checkpoint import Checkpoint, parse_header
from backbones.sources.source import Source, is_ours, listed, rename_each
from backbones.weight_files import WeightFile

SOURCE = Source(
    name="own",
    title="this project's backbone.safetensors",
    entries=(),
    rename=lambda tensors: rename_each(tensors, str),
    restore=lambda checkpoint: dict(checkpoint.state),
    written_as="safetensors",
)


def read_own(file: WeightFile) -> Checkpoint:
    """Return the checkpoint in a file of ours. Raises ValueError where it is not one."""
    architecture, source, normalisation, origin = parse_header(file.path, file.metadata)
    if unknown := [name for name in file.tensors if not is_ours(name)]:
        raise ValueError(f"{file.path}: holds {len(unknown)} names of no parameter: {listed(unknown)}.")
    return Checkpoint(
        path=file.path,
        digest=file.digest,
        state=file.tensors,
        architecture=architecture,
        source=source,
        normalisation=normalisation,
        origin=origin,
    )
