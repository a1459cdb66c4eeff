"""From a weights file of a declared source to a Checkpoint in our names."""

from dataclasses import replace

from backbones.sources import SOURCES
from backbones.sources.architecture import infer_architecture
from backbones.sources.own import read_own
from backbones.sources.source import agreed, check_whole
from backbones.sources.unsupported import unsupported
from backbones.sources.wrappers import rename_unwrapped
from backbones.weights.checkpoint import FORMAT, Checkpoint, parse_header
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from backbones.weights.reader import WeightFile, open_weight_file, take_weights

DECLARED = "normalisation: declared, in place of what the file tells"
AMBIGUOUS = (
    "no config.json of timm beside the file and no known name tells which it is. Put that beside it, give it timm's "
    "name of the model, or declare the heads of a plain ViT (--init-heads)."
)
UNTOLD = (
    "nothing tells the mean and std of the pixels that it was trained with: no config.json of timm lies beside it, and "
    "its name is of no published model, or of several that differ. Declare them (--init-mean, "
    "--init-std): 0.485 0.456 0.406 and 0.229 0.224 0.225 for MAE, DINO, DeiT and BEiT v2, 0.5 0.5 0.5 "
    "twice for AugReg and BEiT."
)


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
        own = read_own(file, num_heads=declared.num_heads, image_size=declared.image_size)
        said = declared_normalisation(declared)
        return own if said is None else replace(own, normalisation=said, notes=(*own.notes, DECLARED))
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
        architecture = replace(architecture, **renamed.untold)
        check_whole(renamed.state, architecture)
        if renamed.ambiguous and declared.num_heads is None:
            raise ValueError(f"{renamed.ambiguous}; {AMBIGUOUS}")
        stated = declared_normalisation(declared)
        normalisation = stated or renamed.normalisation or source.normalisation
        if normalisation is None:
            raise ValueError(UNTOLD)
    except ValueError as error:
        if family := unsupported(file.tensors):
            raise ValueError(f"{path}: {family}") from error
        raise ValueError(f"{path}: read as source {source.name!r} ({source.title}): {error}") from error
    if stated is None and len(normalisation.mean) != architecture.in_chans:  # what is declared must fit
        normalisation = normalisation.spread(architecture.in_chans)
        notes += (f"normalisation: the mean of the family's constants for each of {architecture.in_chans} channels",)
    if stated is not None and renamed.normalisation not in (None, stated):
        notes += (DECLARED,)
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


def declared_normalisation(declared: InitialWeights) -> Normalisation | None:
    """Return what the user says of the pixels, None where nothing. Raises ValueError for a mean without a std."""
    if declared.mean is None and declared.std is None:
        return None
    if declared.mean is None or declared.std is None:
        absent = "mean" if declared.mean is None else "std"
        raise ValueError(f"the {'std' if absent == 'mean' else 'mean'} of the pixels is declared without the {absent}.")
    return Normalisation(tuple(declared.mean), tuple(declared.std))
