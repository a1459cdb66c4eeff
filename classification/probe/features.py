"""Features of every block of a frozen ViT, extracted in one pass over a split and kept on disk.

After each block the residual stream goes through the ViT's final norm (where it has one). Its class token, where it has
one, and the mean of its patch tokens are kept, so the last depth is what a linear probe reads. Half precision: an
entry's relative error is at most 2 ** -11. Axis letters: N images, E depths, B batch, T tokens, D width.
"""

import copy
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

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
from engine.feature_cache import IMAGES, cached, digest_of, open_array, read_list, write_list
from engine.training.ahead import on_device
from engine.training.data import eval_batches, loading_for
from files.writing import replacing

FEATURES = "features.npy"
POOLINGS: tuple[Pooling, ...] = ("class", "mean")


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is kept of one split; the arrays are read from disk as they are used."""

    features_PEND: np.ndarray
    """float16; axis P is `poolings`."""
    poolings: tuple[Pooling, ...]
    label_N: np.ndarray
    image_ids: tuple[str, ...]
    unreadable: tuple[str, ...]
    """One line per image that could not be read; it is in no array."""

    def of(self, depth: int, pooling: Pooling) -> Tensor:
        """Return (N, D) float32 after block `depth`, counted from 1."""
        return torch.from_numpy(
            np.asarray(self.features_PEND[self.poolings.index(pooling), depth - 1], dtype=np.float32)
        )


def cache_key(weights: str, data: LabelledImages, transform: str, precision: str) -> str:
    """Return 16 hexadecimal digits of what the features depend on: names and labels of the images among it."""
    images = ((f"{data.image_id(n)}\n{label}", Path(path)) for n, (path, label) in enumerate(data.folder.samples))
    return digest_of([weights, transform, precision], images)


def cached_features(
    folder: Path, vit: ViT, data: LabelledImages, *, fabric: Fabric, batch_size: int, workers: Workers
) -> Features:
    """Return the features in `folder`, extracted first where they are not there yet or not as they were written.

    `folder` is to be named by `cache_key`.
    """
    shape = _shape(vit, data)
    extract = partial(_extract, folder, vit, data, fabric=fabric, batch_size=batch_size, workers=workers)
    return cached(folder, read=lambda: _read(folder, shape, poolings_of(vit)), make=extract)


def poolings_of(vit: ViT) -> tuple[Pooling, ...]:
    """Return what features of the ViT are kept: of one without a class token the mean alone."""
    return POOLINGS if vit.cls_token is not None else ("mean",)


def every_depth(vit: ViT, image_BCHW: Tensor) -> Tensor:
    """Return (P, E, B, D): the poolings of the tokens after every block, from one forward pass."""
    pooled: list[Tensor] = []
    poolings = poolings_of(vit)

    def keep(block: nn.Module, inputs: tuple[Tensor, ...], tokens_BTD: Tensor) -> None:
        normed_BTD = vit.norm(tokens_BTD)
        pooled.append(torch.stack([pool(normed_BTD, vit.num_prefix_tokens, pooling).float() for pooling in poolings]))

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
                if not float(made.abs().max()) <= torch.finfo(torch.float16).max:  # true of NaN too
                    raise ValueError(
                        f"{batch.ids[0]} and what follows: features beyond the range of float16, or not numbers."
                    )
                file[:, :, len(labels) : len(labels) + len(batch.ids)] = made.half().numpy()
                labels += label_B.tolist()
                image_ids += batch.ids
        file.flush()
    write_list(folder, {"image_ids": image_ids, "labels": labels, "unreadable": unreadable}, [FEATURES])


def _shape(vit: ViT, data: LabelledImages) -> tuple[int, int, int, int]:
    """Return the P, E, N, D of the array; the last of its N are empty where images cannot be read."""
    return len(poolings_of(vit)), vit.architecture.depth, len(data), vit.architecture.embed_dim


def _read(folder: Path, shape: tuple[int, int, int, int], poolings: tuple[Pooling, ...]) -> Features:
    """Return the features in `folder`. Raises OSError, and ValueError where they are not as they were written."""
    listed = read_list(folder, {"image_ids": list, "labels": list, "unreadable": list}, [FEATURES])
    count = len(listed["image_ids"])
    if not count == len(listed["labels"]) == shape[2] - len(listed["unreadable"]):
        raise ValueError(
            f"{folder / IMAGES}: {count} images with {len(listed['labels'])} labels and {len(listed['unreadable'])} "
            f"unreadable ones, for {shape[2]} images."
        )
    features_PEND = open_array(folder / FEATURES, shape, np.float16)
    return Features(
        features_PEND=features_PEND[:, :, :count],
        poolings=poolings,
        label_N=np.asarray(listed["labels"], dtype=np.int64),
        image_ids=tuple(listed["image_ids"]),
        unreadable=tuple(listed["unreadable"]),
    )


def describe(architecture: ViTConfig, crop_pct: float, normalisation: Normalisation) -> str:
    """Return network and transform as text, for `cache_key`."""
    return json.dumps([asdict(architecture), crop_pct, asdict(normalisation)])
