"""This project's own backbone.safetensors: the header says everything."""

from backbones.sources.source import Source, agreed, check_axes, check_whole, is_ours, listed, rename_each
from backbones.weights.checkpoint import Checkpoint, parse_header
from backbones.weights.reader import WeightFile

SOURCE = Source(
    name="own",
    title="this project's backbone.safetensors",
    entries=(),
    rename=lambda tensors: rename_each(tensors, str),
    restore=lambda checkpoint: dict(checkpoint.state),
    written_as="safetensors",
)


def read_own(
    file: WeightFile, *, num_heads: int | None = None, image_size: tuple[int, int] | None = None
) -> Checkpoint:
    """Return the checkpoint in a file of ours; `num_heads` and `image_size` are what the user declares.

    Raises ValueError where it is not one, where its weights are not those of its header, and where the header says
    otherwise than the declaration.
    """
    header = parse_header(file.path, file.metadata)
    if unknown := [name for name in file.tensors if not is_ours(name)]:
        raise ValueError(f"{file.path}: holds {len(unknown)} names of no parameter: {listed(unknown)}.")
    try:
        agreed("num_heads", num_heads, header.architecture.num_heads)
        agreed("image_size", image_size, header.architecture.image_size)
        check_axes(file.tensors)
        check_whole(file.tensors, header.architecture)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    return Checkpoint(
        path=file.path,
        digest=file.digest,
        check=file.check,
        state=file.tensors,
        architecture=header.architecture,
        source=header.source,
        normalisation=header.normalisation,
        origin=header.origin,
        notes=header.notes,
    )
