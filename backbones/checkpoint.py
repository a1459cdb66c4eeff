"""Backbone checkpoints: one safetensors file of ViT parameters, with what they are written in its header.

`read_checkpoint` gives a Checkpoint, `load_checkpoint` puts it into a ViT strictly: every tensor is loaded, resized,
dropped by a stated rule, or an error. Reading never executes code of the file.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backbones.config import ViTConfig
from backbones.position import resize_position
from backbones.vit import ViT

FORMAT = "mae-transfer-backbone/1"


@dataclass(frozen=True)
class Normalisation:
    """What the pixels (0 to 1, RGB) were normalised with when the weights were trained."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one ViT and what is known of them."""

    path: Path
    sha256: str
    state: dict[str, Tensor]
    architecture: ViTConfig
    source: str
    """What made the weights, for tables: `mae`, `supervised`, ..."""
    normalisation: Normalisation
    prefix: int
    """Rows of the position table before the patches: 1 with a class token."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint."""

    path: str
    sha256: str
    source: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    """`name: from -> to, method`"""
    dropped: tuple[str, ...]
    """`name: rule`"""

    def lines(self) -> list[str]:
        """A few lines for people."""
        head = f"{Path(self.path).name} ({self.source}, sha256 {self.sha256[:12]}): {len(self.loaded)} tensors loaded"
        return [
            head,
            *(f"  resized {item}" for item in self.resized),
            *(f"  dropped {item}" for item in self.dropped),
        ]


def write_checkpoint(path: Path, vit: ViT, *, source: str, normalisation: Normalisation | None = None) -> None:
    """Write the ViT's parameters to `path` by a temporary file and a rename, so a crash leaves the previous file."""
    normalisation = normalisation or Normalisation()
    header = {
        "architecture": asdict(vit.architecture),
        "source": source,
        "normalisation": asdict(normalisation),
        "class_token": vit.cls_token is not None,
    }
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in vit.state_dict().items()}
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # one entry: safetensors writes several in random order, and equal weights should have equal digests
        save_file(state, temporary, metadata={FORMAT: json.dumps(header, sort_keys=True)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # in a read-only or absent folder there is nothing to remove
            temporary.unlink()
        raise OSError(f"{path}: could not be written ({error}); the file of before, if any, is as it was.") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the weights in `path`. Raises FileNotFoundError, or ValueError where it is not what we write."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a safetensors file, or a truncated one of {path.stat().st_size:,} bytes ({error}); "
            "give the backbone.safetensors that a pre-training run wrote."
        ) from error
    if FORMAT not in metadata:
        raise ValueError(
            f"{path}: a safetensors file without this project's header (expected {FORMAT!r}, "
            f"found {sorted(metadata) or 'none'}); give the backbone.safetensors that a pre-training run wrote."
        )
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} tensors hold NaN or infinity ({_some(bad)}); the run that wrote it diverged."
        )
    try:
        header = json.loads(metadata[FORMAT])
        values = header["architecture"]
        architecture = ViTConfig(**{**values, "image_size": tuple(values["image_size"])})
        normalisation = Normalisation(**{name: tuple(v) for name, v in header["normalisation"].items()})
        source, prefix = str(header["source"]), int(header["class_token"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its header does not describe a ViT ({type(error).__name__}: {error}).") from error
    return Checkpoint(
        path=path,
        sha256=file_sha256(path),
        state=state,
        architecture=architecture,
        source=source,
        normalisation=normalisation,
        prefix=prefix,
    )


def load_checkpoint(vit: ViT, checkpoint: Checkpoint) -> LoadReport:
    """Put the weights into `vit` and return what became of every tensor.

    The position table is resized to the ViT's grid; `norm.*` and the class token are dropped where the ViT has none.
    Raises ValueError where the architecture differs or a name is missing on either side.
    """
    _check_architecture(checkpoint, vit.architecture)
    wanted = vit.state_dict()
    state: dict[str, Tensor] = {}
    resized: list[str] = []
    dropped: list[str] = []
    for name, tensor in checkpoint.state.items():
        if name not in wanted and (name == "cls_token" or name.startswith("norm.")):
            dropped.append(f"{name}: the task's ViT has none")
        elif name == "pos_embed":
            state[name] = _fit_position(tensor, checkpoint, vit, resized, dropped)
        else:
            state[name] = tensor
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in sorted(state.keys() & wanted.keys())
        if state[name].shape != wanted[name].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"{checkpoint.path}: the weights do not fit the backbone. Missing {len(missing)} ({_some(missing)}); "
            f"unexpected {len(unexpected)} ({_some(unexpected)}); other shape {len(shapes)} ({_some(shapes)})."
        )
    vit.load_state_dict(state)
    return LoadReport(
        path=str(checkpoint.path),
        sha256=checkpoint.sha256,
        source=checkpoint.source,
        loaded=tuple(sorted(state)),
        resized=tuple(resized),
        dropped=tuple(dropped),
    )


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _fit_position(table: Tensor, checkpoint: Checkpoint, vit: ViT, resized: list[str], dropped: list[str]) -> Tensor:
    old, new = checkpoint.architecture.grid, vit.architecture.grid
    if vit.prefix > checkpoint.prefix:
        raise ValueError(f"{checkpoint.path}: has no class token, which this task's ViT needs.")
    if vit.prefix < checkpoint.prefix:
        table = table[:, checkpoint.prefix :]
        dropped.append("pos_embed row 0: the task's ViT has no class token")
    if old != new:
        resized.append(f"pos_embed: {old[0]}x{old[1]} -> {new[0]}x{new[1]} patches, bicubic")
    return resize_position(table, old, new, vit.prefix)


def _check_architecture(checkpoint: Checkpoint, wanted: ViTConfig) -> None:
    """Raise ValueError that names every field in which the two differ; the image size and `position` may."""
    found = checkpoint.architecture
    names = [f.name for f in fields(ViTConfig) if f.name not in ("image_size", "position")]
    differ = [
        f"{n} {getattr(found, n)} (recipe: {getattr(wanted, n)})"
        for n in names
        if getattr(found, n) != getattr(wanted, n)
    ]
    if differ:
        raise ValueError(
            f"{checkpoint.path}: a checkpoint of another architecture: {', '.join(differ)}. "
            "Take the recipe of that architecture, or another checkpoint."
        )


def _some(names: list[str], most: int = 5) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"
