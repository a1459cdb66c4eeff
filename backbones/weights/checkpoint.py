"""Backbone checkpoints: the weights of one ViT with what is known of them, and our file of them.

A file of ours is safetensors with one header entry. Other families' files become a Checkpoint in backbones/sources/;
backbones/weights/loader.py puts one into a ViT.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checksum import BLANK, FIELD, stamp
from backbones.weights.declaration import BACKBONE_NAME
from backbones.weights.normalisation import IMAGENET, Normalisation
from files.parsing import parse_json
from files.typed import from_json
from files.writing import replacing

UNSTAMPED = (
    "its header holds no checksum, so that damage to the file would not be seen; it was written before there were"
)
FORMAT = "mae-transfer-backbone/1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights in our names and what is known of them."""

    path: Path
    digest: Callable[[], str]
    """Gives the SHA-256 of the file; it may still be computed while the weights are used."""
    state: dict[str, Tensor]
    """The ViT's parameters; beside them what else the file holds that has a name here: MAE's decoder, a head."""
    architecture: ViTConfig
    source: str
    """What made the weights, for tables: `mae`, `supervised`, ..."""
    normalisation: Normalisation = IMAGENET
    dropped: tuple[str, ...] = ()
    """`name: rule` of the tensors of the file that have no name here."""
    notes: tuple[str, ...] = ()
    """What was concluded and not read."""
    origin: str | None = None
    """What the weights were converted from, its SHA-256 included."""
    check: Callable[[], None] = lambda: None
    """Waits until the file's bytes are compared with the checksums in it, and raises ValueError where they differ;
    `load_checkpoint` and `write_as` call it."""

    def __post_init__(self) -> None:
        """Raise ValueError where the normalisation is for other images than the weights."""
        self.normalisation.check_channels(self.path, self.architecture.in_chans)

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the file."""
        return self.digest()

    @property
    def num_prefix_positions(self) -> int:
        """Rows of the position table before the patches: one for each of class token and distillation token.

        Registers have none.
        """
        return sum(name in self.state for name in ("cls_token", "dist_token"))


def write_checkpoint(path: Path, vit: ViT, *, source: str, normalisation: Normalisation | None = None) -> None:
    """Write the ViT's parameters to `path` by a temporary file and a rename, so a crash leaves the previous file."""
    write_state(
        path,
        vit.state_dict(),
        architecture=vit.architecture,
        source=source,
        normalisation=normalisation or IMAGENET,
    )


def leave_backbone(folder: Path, vit: ViT, *, source: str, normalisation: Normalisation) -> Path:
    """Write the ViT that a run has trained where the next run's `--init` takes it, and return the path.

    `source` is what made it: the way of pre-training or, of a transfer, what that started from and its task
    (`mae+classification`).
    """
    path = folder / BACKBONE_NAME
    write_checkpoint(path, vit, source=source, normalisation=normalisation)
    return path


def write_state(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    architecture: ViTConfig,
    source: str,
    normalisation: Normalisation,
    origin: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write weights in our names to `path`, as float32, by a temporary file and a rename.

    `notes` is what was concluded of the file that they were converted from.

    Raises OSError, the file of before being left as it was, and ValueError where the normalisation is for another
    number of channels.
    """
    normalisation.check_channels(path, architecture.in_chans)
    header = {
        "architecture": asdict(architecture),
        "source": source,
        "normalisation": asdict(normalisation),
        "origin": origin,
        "notes": list(notes),
        FIELD: BLANK,
    }
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        # one entry: safetensors writes several in random order, and equal weights should have equal digests
        save_file(tensors, temporary, metadata={FORMAT: json.dumps(header, sort_keys=True)})
        stamp(temporary)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file of ours says of its weights."""

    architecture: ViTConfig
    source: str
    normalisation: Normalisation
    origin: str | None = None
    notes: tuple[str, ...] = ()


def parse_header(path: Path, metadata: Mapping[str, str]) -> Header:
    """Return what the header says. Raises ValueError where the file is not one of ours."""
    if FORMAT not in metadata:
        raise ValueError(
            f"{path}: a file without this project's header (expected {FORMAT!r}, found "
            f"{sorted(metadata) or 'none'}). Give the backbone.safetensors that a pre-training run wrote, or declare "
            "what it is (--init-source): `python tools/convert_checkpoint.py inspect FILE` "
            "says what it looks like."
        )
    try:
        stated = parse_json(metadata[FORMAT].encode(), FORMAT, surrogates=True)  # a note may name a file
        known = {f.name for f in fields(Header)}
        if isinstance(stated, dict):  # other fields are those of a later version
            header = from_json(Header, {name: value for name, value in stated.items() if name in known})
        else:
            header = from_json(Header, stated)
    except ValueError as error:
        raise ValueError(f"{path}: its header does not describe a ViT ({error}).") from error
    # files from before have no checksum
    return header if FIELD in stated else replace(header, notes=(*header.notes, UNSTAMPED))
