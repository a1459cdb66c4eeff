"""Patch tokens of a frozen ViT and the classes of each patch, extracted in one pass over a split and kept on disk.

Every image is resized to one size, so all have the same grid of patches. After each of the last blocks the residual
stream goes through the ViT's final norm (where it has one). Half precision: an entry's relative error is at most
2 ** -11. A label map keeps its own size; a pixel belongs to the patch that it lies in when the grid is laid over it.

Axis letters: N images, P patches of an image (row-major), h x w of them, H x W pixels, D width, C classes, B batch.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from backbones.normalise import Normalise
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from engine.config import Workers
from engine.feature_cache import IMAGES, cached, digest_of, open_array, read_list, write_list
from engine.training.ahead import on_device
from engine.training.data import eval_batches, loading_for
from files.writing import replacing
from segmentation.data.classes import Classes
from segmentation.data.labels import IGNORED
from segmentation.data.layout import Split
from segmentation.data.mapping import PairedImages, ReadLabelMap, ReadUprightImage
from segmentation.host import BaseTransform
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.crops import CropBoth

FEATURES, SHARES, LABELLED = "features.npy", "shares.npy", "labelled.npy"
ARRAYS = (FEATURES, SHARES, LABELLED)
Grid = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PatchFeatures:
    """What is kept of one split; the arrays are read from disk as they are used."""

    feature_NPD: np.ndarray
    """float16."""
    share_NPC: np.ndarray
    """float16: of the labelled pixels of a patch, the share of each class; zeros where none is labelled."""
    labelled_NP: np.ndarray
    """int32: labelled pixels of a patch."""
    index_N: np.ndarray
    """Place of each image in its split; of several crops of an image it is the same."""
    unreadable: tuple[str, ...]
    """One line per image that could not be read, itself or its label map; it is in no array."""
    grid: Grid


class ToPatches(BaseTransform):
    """Resizes the image, and counts the classes of every patch of its label map."""

    def __init__(self, size: tuple[int, int], grid: Grid, classes: int) -> None:
        super().__init__()
        self.size, self.grid, self.classes = size, grid, classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `pixels` (3, H, W) uint8 RGB, `share` (P, C), `labelled` (P) and `index`."""
        image = Image.fromarray(np.ascontiguousarray(results["img"][:, :, ::-1]))
        image = image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC)
        count_PC = patch_counts(results["gt_seg_map"], self.grid, self.classes)
        labelled_P = count_PC.sum(axis=1)
        return {
            "pixels": torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(),
            "share": torch.from_numpy(count_PC / np.maximum(labelled_P, 1)[:, None]).half(),
            "labelled": torch.from_numpy(labelled_P).int(),
            "index": results["sample_idx"],
        }


def patch_counts(label_HW: np.ndarray, grid: Grid, classes: int) -> np.ndarray:
    """Return the pixels of every class in every patch, (P, C) int64; ignored pixels are in none."""
    rows, columns = (np.arange(side) * of // side for side, of in zip(label_HW.shape, grid, strict=True))
    patch_HW = rows[:, None] * grid[1] + columns
    counted = label_HW != IGNORED
    codes = patch_HW[counted] * classes + label_HW[counted]
    return np.bincount(codes, minlength=grid[0] * grid[1] * classes).reshape(-1, classes)


def split_images(
    config: DenseProbeConfig, split: Split, classes: Classes, crop: CropBoth | None = None
) -> PairedImages:
    """Return the samples of a split, or crops of it: the first of every image, then the second, and so on."""
    size = config.backbone.image_size
    steps = [
        ReadUprightImage(),
        ReadLabelMap(split.label_mapping),
        *([crop] if crop is not None else []),
        ToPatches(size, config.backbone.grid, len(classes.names)),
    ]
    return PairedImages(split.pairs * (config.augmentation_epochs if crop is not None else 1), classes, steps)


def last_tokens(vit: ViT, image_BCHW: Tensor, blocks: int) -> Tensor:
    """Return the patch tokens after the last blocks, side by side, (B, P, blocks * D) float32."""
    depth = len(vit.blocks)
    maps = vit.feature_maps(image_BCHW, range(depth - blocks, depth))
    return torch.cat([vit.norm(x_BDhw.flatten(2).transpose(1, 2)).float() for x_BDhw in maps], dim=2)


def patch_features(
    cache: Path,
    vit: ViT,
    config: DenseProbeConfig,
    split: Split,
    classes: Classes,
    *,
    weights: str,
    normalisation: Normalisation,
    fabric: Fabric,
    crop: CropBoth | None = None,
) -> tuple[Path, PatchFeatures]:
    """Return the folder below `cache` with the features of a split, or of crops of it, and these, extracted first if
    they are not there.

    `weights` says whose they are. Raises ValueError where no image can be read, for a label map of another size than
    its image, and for features beyond the range of float16.
    """
    text = json.dumps([asdict(config.backbone), config.last_blocks, asdict(normalisation), [*classes.names]])
    table = json.dumps(split.label_mapping.table)
    files = ((pair.image_id, path) for pair in split.pairs for path in (pair.image, pair.labels))
    cut = [] if crop is None else [json.dumps([config.augmentation_epochs, crop.scale, crop.flip, crop.seed])]
    folder = cache / f"dense-{digest_of([weights, text, table, str(fabric._precision.precision), *cut], files)}"
    data = split_images(config, split, classes, crop)
    width = config.last_blocks * config.backbone.embed_dim
    shape = (len(data), config.backbone.grid[0] * config.backbone.grid[1], width)
    extract = partial(
        _extract,
        folder,
        partial(last_tokens, vit, blocks=config.last_blocks),
        data,
        shape,
        Normalise(normalisation).to(fabric.device),
        fabric=fabric,
        batch_size=config.batch_size,
        workers=config.workers,
    )
    count = len(classes.names)
    found = cached(folder, read=lambda: _read(folder, shape, count, config.backbone.grid), make=extract)
    return folder, replace(found, index_N=found.index_N % len(split.pairs))


def _collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tensors = {key: torch.stack([sample[key] for sample in samples]) for key in ("pixels", "share", "labelled")}
    return {**tensors, "index": [sample["index"] for sample in samples]}


def _extract(
    folder: Path,
    tokens: Any,
    data: PairedImages,
    shape: tuple[int, int, int],
    normalise: Normalise,
    *,
    fabric: Fabric,
    batch_size: int,
    workers: Workers,
) -> None:
    classes = len(data.metainfo["classes"])
    loaded = eval_batches(data, _collate, batch_size=batch_size, loading=loading_for(workers, fabric.device))
    index: list[int] = []
    unreadable: list[str] = []
    with (
        replacing(folder / FEATURES) as of_features,
        replacing(folder / SHARES) as of_shares,
        replacing(folder / LABELLED) as of_labelled,
    ):
        feature_NPD = np.lib.format.open_memmap(of_features, mode="w+", dtype=np.float16, shape=shape)
        share_NPC = np.lib.format.open_memmap(of_shares, mode="w+", dtype=np.float16, shape=(*shape[:2], classes))
        labelled_NP = np.lib.format.open_memmap(of_labelled, mode="w+", dtype=np.int32, shape=shape[:2])
        with closing(on_device(loaded, fabric)) as batches:
            for batch in batches:
                unreadable += [str(error) for error in batch.unreadable]
                if not batch.ids:
                    continue
                with torch.no_grad(), fabric.autocast():
                    made_BPD = tokens(image_BCHW=normalise(batch.data["pixels"])).cpu()
                if not float(made_BPD.abs().max()) <= torch.finfo(torch.float16).max:
                    raise ValueError(
                        f"{batch.ids[0]} and what follows: features beyond the range of float16, or not numbers."
                    )
                place = slice(len(index), len(index) + len(batch.ids))
                feature_NPD[place] = made_BPD.half().numpy()
                share_NPC[place] = batch.data["share"].cpu().numpy()
                labelled_NP[place] = batch.data["labelled"].cpu().numpy()
                index += batch.data["index"]
        for array in (feature_NPD, share_NPC, labelled_NP):
            array.flush()
    write_list(folder, {"index": index, "unreadable": unreadable}, ARRAYS)


def _read(folder: Path, shape: tuple[int, int, int], classes: int, grid: Grid) -> PatchFeatures:
    listed = read_list(folder, {"index": list, "unreadable": list}, ARRAYS)
    count = len(listed["index"])
    if count != shape[0] - len(listed["unreadable"]):
        raise ValueError(
            f"{folder / IMAGES}: {count} images and {len(listed['unreadable'])} unreadable ones, for {shape[0]} images."
        )
    return PatchFeatures(
        feature_NPD=open_array(folder / FEATURES, shape, np.float16)[:count],
        share_NPC=open_array(folder / SHARES, (*shape[:2], classes), np.float16)[:count],
        labelled_NP=open_array(folder / LABELLED, shape[:2], np.int32)[:count],
        index_N=np.asarray(listed["index"], dtype=np.int64),
        unreadable=tuple(listed["unreadable"]),
        grid=grid,
    )
