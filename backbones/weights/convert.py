"""A checkpoint written in another family's format, changed in shape first where that was asked for."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.sources import SOURCES, huggingface_written, timm_written
from backbones.sources.source import ENCODER, HEAD, Source
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint, write_state
from backbones.weights.declaration import Changes
from backbones.weights.loader import Fit, by_rule, load_checkpoint
from files.writing import replacing

PYTORCH_SUFFIXES = (".pth", ".pt", ".bin")


def changed(checkpoint: Checkpoint, changes: Changes) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint as asked for, and lines that say what was done.

    A new shape goes through a ViT of that shape, so the rules are those of every load; a decoder is left out then, for
    it fits the old shape alone. Raises ValueError for channels without a rule.
    """
    old = checkpoint.architecture
    for flag, value in (("--patch-size", changes.patch_size), ("--in-chans", changes.in_chans)):
        if value is not None and value < 1:
            raise ValueError(f"{flag} {value}: it must be at least 1.")
    patch = changes.patch_size or old.patch_size
    size = changes.resize_to or (old.grid[0] * patch, old.grid[1] * patch)
    if changes.patch_size and not changes.resize_to:
        size = old.image_size
    in_chans = changes.in_chans or old.in_chans
    if changes.inflate is not None and in_chans == old.in_chans:
        raise ValueError(f"--inflate {changes.inflate}: the weights have {old.in_chans} channels already; to how many?")
    if in_chans != old.in_chans and changes.inflate is None:
        raise ValueError(
            f"{old.in_chans} channels to {in_chans}: say how with --inflate sum, mean or repeat (sum: a greyscale "
            "image copied to all channels gives what it gave)."
        )
    new = replace(old, patch_size=patch, image_size=size, in_chans=in_chans)
    if new == old:
        if not changes.encoder_only:
            return checkpoint, []
        kept = {name: tensor for name, tensor in checkpoint.state.items() if ENCODER.fullmatch(name)}
        return replace(checkpoint, state=kept), [f"left out: {len(checkpoint.state) - len(kept)} of decoder and head"]
    vit = ViT(new, class_token="cls_token" in checkpoint.state, final_norm="norm.weight" in checkpoint.state)
    report = load_checkpoint(vit, checkpoint, Fit(resize_patch=True, inflate=changes.inflate))
    normalisation = checkpoint.normalisation
    if in_chans != old.in_chans:
        normalisation = normalisation.spread(in_chans)
    state = {name: tensor.detach() for name, tensor in vit.state_dict().items()}
    lines = [*(f"resized {line}" for line in report.resized), *(f"new {line}" for line in report.new)]
    head = {name: tensor for name, tensor in checkpoint.state.items() if HEAD.fullmatch(name)}
    if head and not changes.encoder_only:  # a head reads the last block, whatever the image's size
        state |= head
    gone = checkpoint.state.keys() - state.keys()
    lines += [f"left out {line}" for line in by_rule(f"{name}: the decoder or head" for name in gone)]
    return replace(checkpoint, state=state, architecture=new, normalisation=normalisation, dropped=()), lines


def written(target: str, path: Path) -> list[Path]:
    """Return the files that `write_as` writes."""
    beside = {"huggingface": huggingface_written.BESIDE, "timm": timm_written.beside(path)}.get(target, ())
    return [path, *(path.with_name(name) for name in beside)]


def write_as(checkpoint: Checkpoint, target: str, path: Path) -> list[str]:
    """Write the checkpoint in the format of the source `target`, by a temporary file and a rename.

    Returns lines on what was written beside it. Raises ValueError for a family that nothing is written for, or that
    has no place for a tensor.
    """
    source = _writable(target)
    if target != "own":
        _check_usual(checkpoint)
    checkpoint.check()
    suffixes = (".safetensors",) if source.written_as == "safetensors" else PYTORCH_SUFFIXES
    if path.suffix not in suffixes:
        kind = "a .safetensors file" if source.written_as == "safetensors" else f"a PyTorch file: {', '.join(suffixes)}"
        raise ValueError(f"{path}: {source.title.split(':')[0]} ({target}) reads {kind}; name it so.")
    if target == "own":
        write_state(
            path,
            checkpoint.state,
            architecture=checkpoint.architecture,
            source=checkpoint.source,
            normalisation=checkpoint.normalisation,
            origin=checkpoint.origin or f"{checkpoint.path.name}, sha256 {checkpoint.sha256}",
            notes=checkpoint.notes,
        )
        return []
    assert source.restore is not None
    state = {name: tensor.contiguous() for name, tensor in source.restore(checkpoint).items()}
    if target == "timm":
        texts = timm_written.config_text(checkpoint, state, path)  # before anything is written
        _write(source, state, path)
        huggingface_written.write_texts(texts)
        return [*timm_written.remarks(path), *([] if texts else _untold(checkpoint, source))]
    if target != "huggingface":
        _write(source, state, path)
        return _untold(checkpoint, source)
    texts = huggingface_written.check_folder(checkpoint, path.parent)  # before anything is written
    _write(source, state, path)
    huggingface_written.write_texts(texts)
    return huggingface_written.remarks(checkpoint, path)


def _untold(checkpoint: Checkpoint, source: Source) -> list[str]:
    """Return what must be declared to read a file of the family again, where nothing in it tells the pixels."""
    if source.normalisation is not None:
        return []
    mean, std = (" ".join(f"{v:g}" for v in values) for values in asdict(checkpoint.normalisation).values())
    return [f"the file does not tell its pixels; to read it again: --init-mean {mean} --init-std {std}"]


def timm_refuses(checkpoint: Checkpoint) -> str | None:
    """Return why timm has no model of these weights, None where it has one and `write_as` writes its files."""
    source = SOURCES["timm"]
    assert source.restore is not None
    try:
        _check_usual(checkpoint)
        timm_written.model_config(checkpoint, source.restore(checkpoint))
    except ValueError as error:
        return str(error).removeprefix(f"{checkpoint.path}: ")
    return None


def _check_usual(checkpoint: Checkpoint) -> None:
    if unusual := checkpoint.architecture.unusual:
        raise ValueError(
            f"{checkpoint.path}: the ViT has {', '.join(unusual)}, which is written in the format `own` alone."
        )


def _writable(target: str) -> Source:
    writable = sorted(name for name, source in SOURCES.items() if source.restore)
    if target not in writable:
        raise ValueError(f"nothing is written in the format {target!r}; there are: {', '.join(writable)}.")
    return SOURCES[target]


def _write(source: Source, state: Mapping[str, Tensor], path: Path) -> None:
    with replacing(path) as temporary:
        if source.written_as == "safetensors":
            save_file(dict(state), temporary, metadata={"format": "pt"})  # transformers asks for the entry
        else:
            torch.save({source.written_entry: dict(state)} if source.written_entry else dict(state), temporary)
