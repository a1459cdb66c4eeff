"""Features of every block of a frozen ViT, extracted in one pass over a split and kept on disk.

After each block the residual stream goes through the ViT's final norm (where it has one), and its class token and the
mean of its patch tokens are kept, so the last depth is what a linear probe reads. Half precision: an entry's relative
error is at most 2 ** -11. Axis letters: N images, E depths, B batch, T tokens, D width.
"""

import copy
import hashlib
import json
import warnings
import zlib
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from classification.config import Pooling
from classification.data import LabelledImages, collate
from classification.heads import pool
from engine.config import Workers
from engine.training.ahead import on_device
from engine.training.data import eval_batches, loading_for
from files.locking import locked
from files.parsing import read_json
from files.writing import replacing

FEATURES = "features.npy"
IMAGES = "images.json"
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
    folder: Path, vit: ViT, data: LabelledImages, *, fabric: Fabric, batch_size: int, workers: Workers
) -> Features:
    """Return the features in `folder`, extracted first where they are not there yet.

    `folder` is to be named by `cache_key`. Extraction that is stopped half-way leaves nothing that is taken for whole;
    while another process extracts the same, this one waits for it. What does not have the checksum that it was written
    with is extracted again, with a warning: the check reads all of it once (crc32, 1 to 3 GB a second).
    """
    shape = _shape(vit, data)
    if (found := _whole(folder, shape, warn=False)) is None:
        with locked(folder, wait=True) as note:
            if note is not None:
                warnings.warn(note, stacklevel=2)
            if (found := _whole(folder, shape, warn=True)) is None:
                _extract(folder, vit, data, fabric=fabric, batch_size=batch_size, workers=workers)
                found = _read(folder, shape)
    return found


def every_depth(vit: ViT, image_BCHW: Tensor) -> Tensor:
    """Return (P, E, B, D): both poolings of the tokens after every block, from one forward pass."""
    pooled: list[Tensor] = []

    def keep(block: nn.Module, inputs: tuple[Tensor, ...], tokens_BTD: Tensor) -> None:
        normed_BTD = vit.norm(tokens_BTD)
        pooled.append(torch.stack([pool(normed_BTD, vit.num_prefix_tokens, pooling).float() for pooling in POOLINGS]))

    handles = [block.register_forward_hook(keep) for block in vit.blocks]
    try:
        vit(image_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(pooled, dim=1)


def _extract(
    folder: Path, vit: ViT, data: LabelledImages, *, fabric: Fabric, batch_size: int, workers: Workers
) -> None:
    shape = _shape(vit, data)
    labels: list[int] = []
    image_ids: list[str] = []
    unreadable: list[str] = []
    loaded = eval_batches(data, collate, batch_size=batch_size, loading=loading_for(workers, fabric.device))
    with replacing(folder / FEATURES) as temporary:
        file = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        normalise = copy.deepcopy(data.view.normalise).to(fabric.device)
        with closing(on_device(loaded, fabric)) as batches:
            for batch in batches:
                unreadable += [str(error) for error in batch.unreadable]
                if not batch.ids:
                    continue
                pixels_BCHW, label_B = batch.data
                with torch.no_grad(), fabric.autocast():
                    made = every_depth(vit, normalise(pixels_BCHW)).cpu()
                if float(made.abs().max()) > torch.finfo(torch.float16).max:
                    raise ValueError(f"{batch.ids[0]} and what follows: features beyond the range of float16.")
                file[:, :, len(labels) : len(labels) + len(batch.ids)] = made.half().numpy()
                labels += label_B.tolist()
                image_ids += batch.ids
        file.flush()
    with replacing(folder / IMAGES) as temporary:
        values = {
            "image_ids": image_ids,
            "labels": labels,
            "unreadable": unreadable,
            "features_crc32": _file_crc32(folder / FEATURES),
        }
        temporary.write_text(json.dumps({**values, "crc32": _values_crc32(values)}), encoding="utf-8")


def _shape(vit: ViT, data: LabelledImages) -> tuple[int, int, int, int]:
    """Return the P, E, N, D of the array; the last of its N are empty where images cannot be read."""
    return len(POOLINGS), vit.architecture.depth, len(data), vit.architecture.embed_dim


def _whole(folder: Path, shape: tuple[int, ...], *, warn: bool) -> Features | None:
    """Return what is in `folder`, or None where there is nothing, or something else than was written."""
    if not (folder / IMAGES).is_file():
        return None
    try:
        return _read(folder, shape)
    except (ValueError, OSError) as error:
        if warn:
            warnings.warn(f"cached features not usable, extracted again: {error}", stacklevel=3)
        return None


def _read(folder: Path, shape: tuple[int, ...]) -> Features:
    """Return the features in `folder`. Raises OSError, and ValueError where they are not as they were written."""
    path = folder / IMAGES
    listed = read_json(path, surrogates=True)  # names of files may be no UTF-8
    kinds = {"image_ids": list, "labels": list, "unreadable": list, "features_crc32": int, "crc32": int}
    if not isinstance(listed, dict) or {key: type(value) for key, value in listed.items()} != kinds:
        raise ValueError(f"{path}: not the list of images of cached features, or one without checksums.")
    if listed.pop("crc32") != _values_crc32(listed):
        raise ValueError(f"{path}: its content does not have the checksum that it was written with.")
    count = len(listed["image_ids"])
    if not count == len(listed["labels"]) == shape[2] - len(listed["unreadable"]):
        raise ValueError(
            f"{path}: {count} images with {len(listed['labels'])} labels and {len(listed['unreadable'])} unreadable "
            f"ones, for {shape[2]} images."
        )
    array = folder / FEATURES
    if listed["features_crc32"] != _file_crc32(array):
        raise ValueError(f"{array}: its content does not have the checksum that it was written with.")
    features_PEND = np.load(array, mmap_mode="r", allow_pickle=False)
    if features_PEND.shape != shape or features_PEND.dtype != np.float16:
        raise ValueError(f"{array}: {features_PEND.dtype} of shape {features_PEND.shape} for float16 of {shape}.")
    return Features(
        features_PEND=features_PEND[:, :, :count],
        label_N=np.asarray(listed["labels"], dtype=np.int64),
        image_ids=tuple(listed["image_ids"]),
        unreadable=tuple(listed["unreadable"]),
    )


def _values_crc32(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _file_crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return crc


def describe(architecture: ViTConfig, crop_pct: float, normalisation: Normalisation) -> str:
    """Return network and transform as text, for `cache_key`."""
    return json.dumps([asdict(architecture), crop_pct, asdict(normalisation)])
