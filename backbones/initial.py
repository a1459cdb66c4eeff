"""The weights that a run starts from, from the user's declaration to a ViT that holds them."""

from pathlib import Path
from typing import Protocol

from backbones.checkpoint import IMAGENET, Checkpoint, Normalisation
from backbones.loading import RANDOM, Fit, LoadReport, load_checkpoint
from backbones.sources.read import Declared, read_checkpoint
from backbones.vit import ViT


class Declaration(Protocol):
    """A weights file and what the user says of it; engine.task.InitialWeights is one."""

    @property
    def path(self) -> Path: ...
    @property
    def source(self) -> str: ...
    @property
    def num_heads(self) -> int | None: ...
    @property
    def image_size(self) -> tuple[int, int] | None: ...
    @property
    def trust_pickle(self) -> bool: ...
    @property
    def resize_patch(self) -> bool: ...


def declared_normalisation(init: Declaration | None) -> Normalisation:
    """Return what the declared weights normalise pixels with, ImageNet's mean and deviation for random ones."""
    return IMAGENET if init is None else _read(init).normalisation


def start_from(vit: ViT, init: Declaration | None) -> tuple[LoadReport, Normalisation]:
    """Put the declared weights into `vit`, or leave its random ones, and return the report and the normalisation.

    Raises what reading and loading raise.
    """
    if init is None:
        return RANDOM, IMAGENET
    checkpoint = _read(init)
    return load_checkpoint(vit, checkpoint, Fit(resize_patch=init.resize_patch)), checkpoint.normalisation


def _read(init: Declaration) -> Checkpoint:
    return read_checkpoint(
        init.path,
        Declared(
            source=init.source, num_heads=init.num_heads, image_size=init.image_size, trust_pickle=init.trust_pickle
        ),
    )
