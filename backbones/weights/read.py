"""From a weights file of a declared source to a Checkpoint in our names."""

from backbones.sources import SOURCES
from backbones.sources.architecture import infer_architecture
from backbones.sources.own import read_own
from backbones.sources.source import agreed, check_whole
from backbones.sources.wrappers import rename_unwrapped
from backbones.weights.checkpoint import FORMAT, Checkpoint, parse_header
from backbones.weights.declaration import InitialWeights
from backbones.weights.reader import WeightFile, open_weight_file, take_weights


def read_checkpoint(declared: InitialWeights) -> Checkpoint:
    """Return the weights that are declared. Raises FileNotFoundError, or ValueError where the file is another."""
    path = declared.path
    if declared.source not in SOURCES:
        raise ValueError(f"no source is called {declared.source!r}; there are: {', '.join(sorted(SOURCES))}.")
    opened = open_weight_file(path, trust_pickle=declared.trust_pickle)
    if declared.source == "own":
        parse_header(path, opened.metadata)  # of another family more can be said than where its tensors lie
    return interpret(take_weights(opened, entries=SOURCES[declared.source].entries), declared)


def interpret(file: WeightFile, declared: InitialWeights) -> Checkpoint:
    """Return the weights of a file that was read with the entries of the declared source. Raises ValueError."""
    source, path = SOURCES[declared.source], file.path
    if source.name == "own":
        return read_own(file, num_heads=declared.num_heads, image_size=declared.image_size)
    if FORMAT in file.metadata:
        raise ValueError(f"{path}: its header says that it is one of ours; declare source 'own', not {source.name!r}.")
    try:
        renamed = rename_unwrapped(source.rename, file.tensors)
        if source.beside:
            renamed = source.beside(renamed, path)
        image_size = agreed("image_size", declared.image_size, renamed.image_size)
        if source.complete:
            renamed = source.complete(renamed, image_size)
        architecture, notes = infer_architecture(
            renamed.state,
            num_heads=agreed("num_heads", declared.num_heads, renamed.num_heads),
            usual_heads=source.heads,
            image_size=image_size,
        )
        check_whole(renamed.state, architecture)
    except ValueError as error:
        raise ValueError(f"{path}: read as source {source.name!r} ({source.title}): {error}") from error
    normalisation = renamed.normalisation or source.normalisation
    if len(normalisation.mean) != architecture.in_chans:  # what a file tells, its source has compared
        normalisation = normalisation.spread(architecture.in_chans)
        notes += (f"normalisation: the mean of the family's constants for each of {architecture.in_chans} channels",)
    return Checkpoint(
        path=path,
        digest=file.digest,
        check=file.check,
        state=renamed.state,
        architecture=architecture,
        source=source.name,
        normalisation=normalisation,
        dropped=renamed.dropped + tuple(f"{name}: not the entry of the weights" for name in file.others),
        notes=renamed.notes + notes,
    )
