"""Features of every block of a frozen ViT, extracted in one pass over a split and kept on disk.

After each block the residual stream goes through the ViT's final norm (where it has one), and its class token and the
mean of its patch tokens are kept, so the last depth is what a linear probe reads. Half precision: an entry's relative
error is at most 2 ** -11. Axis letters: N images, E depths, B batch, T tokens, D width.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from backbones.checkpoint import Normalisation
from backbones.config import ViTConfig
from backbones.vit import ViT
from classification.config import Pooling
from classification.data import LabelledImages
from classification.heads import pool
from engine.images import UnreadableImageError
from files.writing import replacing

POOLINGS: tuple[Pooling, ...] = ("class", "mean")


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is kept of one split; the arrays are read from disk as they are used."""

    features_PEND: np.ndarray
    """float16; axis P is POOLINGS."""
    label_N: np.ndarray
    image_ids: tuple[str, ...]
    unreadable: tuple[str, ...]
    """One line per image that could not be read; it is in no array."""

    def of(self, depth: int, pooling: Pooling) -> Tensor:
        """Return (N, D) float32 after block `depth`, counted from 1."""
        return torch.from_numpy(np.asarray(self.features_PEND[POOLINGS.index(pooling), depth - 1], dtype=np.float32))


def cache_key(weights: str, data: LabelledImages, transform: str, precision: str) -> str:
    """Return 16 hexadecimal digits of what the features depend on.

    The data count by their names, labels, sizes and times of change: reading them would cost what is saved.
    """
    digest = hashlib.sha256(json.dumps([weights, transform, precision]).encode())
    for index, (path, label) in enumerate(data.folder.samples):
        stat = Path(path).stat()
        digest.update(f"{data.image_id(index)}\n{label} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def cached_features(
    folder: Path, vit: ViT, data: LabelledImages, *, fabric: Fabric, batch_size: int, workers: int
) -> Features:
    """Return the features in `folder`, extracted first where they are not there yet.

    `folder` is to be named by `cache_key`. Extraction that is stopped half-way leaves nothing that is taken for whole;
    while another process extracts the same, this one waits for it.
    """
    done = folder / "images.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.is_file():
                _extract(folder, vit, data, fabric=fabric, batch_size=batch_size, workers=workers)
    listed = json.loads(done.read_text(encoding="utf-8"))
    count = len(listed["image_ids"])
    return Features(
        features_PEND=np.load(folder / "features.npy", mmap_mode="r")[:, :, :count],
        label_N=np.asarray(listed["labels"], dtype=np.int64),
        image_ids=tuple(listed["image_ids"]),
        unreadable=tuple(listed["unreadable"]),
    )


def every_depth(vit: ViT, image_BCHW: Tensor) -> Tensor:
    """Return (P, E, B, D): both poolings of the tokens after every block, from one forward pass."""
    pooled: list[Tensor] = []

    def keep(block: nn.Module, inputs: tuple[Tensor, ...], tokens_BTD: Tensor) -> None:
        normed_BTD = vit.norm(tokens_BTD)
        pooled.append(torch.stack([pool(normed_BTD, vit.prefix, pooling).float() for pooling in POOLINGS]))

    handles = [block.register_forward_hook(keep) for block in vit.blocks]
    try:
        vit(image_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(pooled, dim=1)


@dataclass(frozen=True)
class _Read:
    """An image, or why there is none."""

    image: Tensor | None
    label: int
    image_id: str
    error: str


class _Readable(Dataset[_Read]):
    def __init__(self, data: LabelledImages) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> _Read:
        try:
            return _Read(*self.data[index], error="")
        except UnreadableImageError as error:
            return _Read(None, -1, self.data.image_id(index), str(error))


def _extract(folder: Path, vit: ViT, data: LabelledImages, *, fabric: Fabric, batch_size: int, workers: int) -> None:
    a = vit.architecture
    shape = (len(POOLINGS), a.depth, len(data), a.embed_dim)
    labels: list[int] = []
    image_ids: list[str] = []
    unreadable: list[str] = []
    with replacing(folder / "features.npy") as temporary:
        file = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        for images, read, errors in _batches(data, batch_size, workers):
            unreadable += errors
            if not read:
                continue
            with torch.no_grad(), fabric.autocast():
                made = every_depth(vit, images.to(fabric.device)).cpu()
            if float(made.abs().max()) > torch.finfo(torch.float16).max:
                raise ValueError(f"{read[0].image_id} and what follows: features beyond the range of float16.")
            file[:, :, len(labels) : len(labels) + len(read)] = made.half().numpy()
            labels += [item.label for item in read]
            image_ids += [item.image_id for item in read]
        file.flush()
    with replacing(folder / "images.json") as temporary:
        values = {"image_ids": image_ids, "labels": labels, "unreadable": unreadable}
        temporary.write_text(json.dumps(values), encoding="utf-8")


def _batches(data: LabelledImages, batch_size: int, workers: int) -> Iterator[tuple[Tensor, list[_Read], list[str]]]:
    loader: DataLoader[_Read] = DataLoader(_Readable(data), batch_size, num_workers=workers, collate_fn=list)
    for items in loader:
        read = [item for item in items if item.image is not None]
        images = [item.image for item in read if item.image is not None]
        yield torch.stack(images) if images else torch.empty(0), read, [item.error for item in items if item.error]


def describe(architecture: ViTConfig, crop_share: float, normalisation: Normalisation) -> str:
    """Return network and transform as text, for `cache_key`."""
    return json.dumps([asdict(architecture), crop_share, asdict(normalisation)])
