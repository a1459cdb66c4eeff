"""Samples for training and evaluation, by mmseg's data set class and transforms.

Files are read here, everything after is the host's: images come in BGR, as mmseg's photometric distortion
expects, and the model's preprocessor turns them to RGB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.augment import Augment, SegmentationSample
from engine.images.arrays import RGB
from engine.images.file import UnreadableImageError, most_megapixels, too_large
from engine.images.reading import read_picture, read_rgb
from segmentation.data.classes import Classes, palette_of
from segmentation.data.labels import IGNORED, LabelMapping, decode, read_label_map
from segmentation.data.pairs import Pair
from segmentation.host import (
    TRANSFORMS,
    BaseSegDataset,
    BaseTransform,
    LoadAnnotations,
    PackSegInputs,
    PhotoMetricDistortion,
    RandomCrop,
    RandomFlip,
    RandomResize,
    Resize,
)

# mmseg's: `inputs` (3, H, W) uint8 BGR, or of other than three channels float32 from 0 to 1; `data_samples` a
# SegDataSample
Sample = dict[str, Any]


@TRANSFORMS.register_module()
class ReadUprightImage(BaseTransform):
    """Reads `img_path` as upright 8-bit BGR, whatever kind of photograph it is."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `results` with `img` (H, W, 3), `img_shape` and `ori_shape`."""
        image_HWC = np.asarray(read_rgb(results["img_path"]))[:, :, ::-1]
        results["img"] = np.ascontiguousarray(image_HWC)
        results["img_shape"] = results["ori_shape"] = image_HWC.shape[:2]
        return results


@TRANSFORMS.register_module()
class ReadArray(BaseTransform):
    """Reads `img_path`, an image of other than three channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `results` with `img` (H, W, C) float32, `img_shape` and `ori_shape`."""
        image_HWC = np.asarray(read_picture(results["img_path"], self.channels))
        results["img"] = np.ascontiguousarray(image_HWC)
        results["img_shape"] = results["ori_shape"] = image_HWC.shape[:2]
        return results


def reader_of(channels: int) -> BaseTransform:
    """Return what reads images of so many channels."""
    return ReadUprightImage() if channels == RGB else ReadArray(channels)


@TRANSFORMS.register_module()
class ReadLabelMap(LoadAnnotations):
    """Reads `seg_map_path` strictly: mmseg's own reader wraps labels above 255 and takes colour images."""

    def __init__(self, label_mapping: LabelMapping) -> None:
        super().__init__()
        self.label_mapping = label_mapping

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = Path(results["seg_map_path"])
        label_HW = read_label_map(path)
        if label_HW.shape != results["ori_shape"]:
            height, width = results["ori_shape"]
            raise ValueError(
                f"{path}: the label map is {label_HW.shape[1]} x {label_HW.shape[0]} pixels, its image "
                f"{results['img_path']} is {width} x {height} (upright, EXIF orientation applied); "
                "they must be of one size."
            )
        results["gt_seg_map"] = decode(label_HW, self.label_mapping, path)
        results["seg_fields"].append("gt_seg_map")


@TRANSFORMS.register_module()
class FitInto(Resize):
    """mmcv's Resize, for images too that are so long and thin that a side would be rounded to 0 pixels."""

    def __init__(self, *args: Any, seen_at: float = 1.0, **options: Any) -> None:
        """`seen_at` is the largest factor by which the image is enlarged once more, at test time."""
        super().__init__(*args, **options)
        self.seen_at = seen_at

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `results` with the image and its labels fitted into `scale`.

        Raises UnreadableImageError for an image that would have more than `most_megapixels` then.
        """
        height, width = results["img"].shape[:2]
        factor = min(max(self.scale) / max(height, width), min(self.scale) / min(height, width))
        new = [max(1, round(side * factor * self.seen_at)) for side in (width, height)]
        if new[0] * new[1] > most_megapixels() * 10**6:
            raise UnreadableImageError(
                results["img_path"],
                f"{width} x {height} pixels, of which `resize` {tuple(self.scale)} of the recipe makes "
                f"{new[0]} x {new[1]}; {too_large(most_megapixels())}; or train with a smaller `resize`",
            )
        if min(height, width) * factor >= 0.5:
            return super().transform(results)
        scale = (max(self.scale), 1) if width > height else (1, max(self.scale))
        return Resize(scale=scale, keep_ratio=False).transform(results)


@TRANSFORMS.register_module()
class OwnAugment(BaseTransform):
    """The user's own augmentation of a crop and its labels."""

    def __init__(self, augment: Augment, classes: int) -> None:
        super().__init__()
        self.augment, self.classes = augment, classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `results` with another `img` and `gt_seg_map`. Raises ValueError for what is no sample."""
        image_HW3 = np.ascontiguousarray(results["img"][:, :, ::-1])
        sample = SegmentationSample(image_HW3, np.array(results["gt_seg_map"]))
        made = self.augment(sample, results["img_path"], classes=self.classes)
        results["img"] = np.ascontiguousarray(made.image[:, :, ::-1])
        results["gt_seg_map"] = np.ascontiguousarray(made.label_map)
        return results


class PairedImages(BaseSegDataset):
    """One split as an mmseg data set; names its images."""

    def __init__(self, pairs: Sequence[Pair], classes: Classes, pipeline: Sequence[BaseTransform]) -> None:
        self.pairs = tuple(pairs)
        metainfo: dict[str, Any] = {"classes": list(classes.names), "palette": palette_of(classes).tolist()}
        super().__init__(
            metainfo=metainfo,
            pipeline=list(pipeline),
            ignore_index=IGNORED,
            max_refetch=0,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return mmseg's entry for every pair."""
        return [
            {
                "image_id": pair.image_id,
                "img_path": str(pair.image),
                "seg_map_path": str(pair.labels),
                "seg_fields": [],
            }
            for pair in self.pairs
        ]

    def image_id(self, index: int) -> str:
        """Path of the image below the split's folder."""
        return self.pairs[index].image_id

    @property
    def palette(self) -> np.ndarray:
        """RGB per class, (classes, 3) uint8."""
        return np.array(self.metainfo["palette"], dtype=np.uint8)


def train_pipeline(
    label_mapping: LabelMapping,
    *,
    crop: tuple[int, int],
    resize: tuple[int, int],
    resize_ratio: tuple[float, float],
    cat_max_ratio: float,
    own: OwnAugment | None = None,
    channels: int = RGB,
) -> list[BaseTransform]:
    """Return mmseg's training transforms (`configs/_base_/datasets/ade20k.py`) behind our readers, `own` the last.

    The photometric distortion is of RGB alone.
    """
    return [
        reader_of(channels),
        ReadLabelMap(label_mapping),
        RandomResize(scale=resize, ratio_range=resize_ratio, resize_type=FitInto, keep_ratio=True),
        RandomCrop(crop_size=crop, cat_max_ratio=cat_max_ratio),
        RandomFlip(prob=0.5),
        *([PhotoMetricDistortion()] if channels == RGB else []),
        *([own] if own is not None else []),
        _pack(),
    ]


def val_pipeline(
    label_mapping: LabelMapping, *, resize: tuple[int, int], seen_at: float = 1.0, channels: int = RGB
) -> list[BaseTransform]:
    """Return the transforms of evaluation: the image is fitted into `resize`, the labels keep their size.

    `seen_at` is the largest of the factors that the image is seen at besides.
    """
    fit = FitInto(scale=resize, keep_ratio=True, seen_at=seen_at)
    return [reader_of(channels), fit, ReadLabelMap(label_mapping), _pack()]


def image_pipeline(*, resize: tuple[int, int], seen_at: float = 1.0, channels: int = RGB) -> list[BaseTransform]:
    """Return the transforms of an image without labels."""
    return [reader_of(channels), FitInto(scale=resize, keep_ratio=True, seen_at=seen_at), _pack()]


def collate(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Return mmseg's batch: a list of images, which its preprocessor stacks, and a list of labels."""
    return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}


def _pack() -> BaseTransform:
    return PackSegInputs(meta_keys=("image_id", "img_path", "ori_shape", "img_shape", "flip", "flip_direction"))
