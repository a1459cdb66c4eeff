"""Images and objects for training and evaluation: detectron2's mapper over checked annotations.

Training follows ViTDet's large-scale jitter (arXiv 2203.16527, A.2): flip, random scale, crop to a square.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as rle
import torch
from detectron2.data import DatasetFromList, DatasetMapper, detection_utils
from detectron2.data import transforms as T

from detection.coco import CocoSplit
from engine.images import read_rgb


class Mapper(DatasetMapper):
    """detectron2's mapper with images read by engine.images, and masks rasterised after the transforms."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return `image` (3, H, W) uint8 RGB and, in training, `instances`, beside the record's own fields.

        Raises UnreadableImageError, and ValueError where the file has another size than its record.
        """
        sample = copy.deepcopy(dataset_dict)
        image_HW3 = np.asarray(read_rgb(sample["file_name"]))
        _check_size(sample, image_HW3)
        augmented = T.AugInput(image_HW3)
        transforms = self.augmentations(augmented)
        sample["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            self._transform_annotations(sample, transforms, augmented.image.shape[:2])
        else:
            del sample["annotations"]
        return sample

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.TransformList, image_shape: tuple[int, int]
    ) -> None:
        """Put `instances` in the place of `annotations`; crowds are left out, as in detectron2.

        Polygons are moved as points and clipped by the rasteriser, since detectron2's cropping of polygons
        needs a geometry library.
        """
        objects = []
        for source in dataset_dict.pop("annotations"):
            if source["iscrowd"]:
                continue
            segmentation = source.pop("segmentation", None)
            moved = detection_utils.transform_instance_annotations(source, transforms, image_shape)
            if self.use_instance_mask:
                moved["segmentation"] = _move(segmentation, transforms)
            objects.append(moved)
        instances = detection_utils.annotations_to_instances(
            objects, image_shape, mask_format=self.instance_mask_format
        )
        if self.recompute_boxes and len(instances):
            # the box of what the crop left of a mask is smaller than what it left of the box
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = detection_utils.filter_empty_instances(instances)


@dataclass(frozen=True)
class DetectionData:
    """A split's mapped images, as the training loop indexes them."""

    records: DatasetFromList
    mapper: Mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.mapper(self.records[index])

    def image_id(self, index: int) -> str:
        """The image's file name in the annotations."""
        return self.records[index]["name"]


def train_data(
    split: CocoSplit, *, image_size: int, scale_jitter: tuple[float, float], flip: bool, masks: bool
) -> tuple[DetectionData, tuple[str, ...]]:
    """Return the images that have an object other than a crowd, and a note of those that have none."""
    low, high = scale_jitter
    if not 0 < low <= high:
        raise ValueError(f"scale_jitter {scale_jitter} must be two positive factors in ascending order.")
    augmentations = [
        *([T.RandomFlip(horizontal=True)] if flip else []),
        T.ResizeScale(min_scale=low, max_scale=high, target_height=image_size, target_width=image_size),
        T.FixedSizeCrop(crop_size=(image_size, image_size), pad=False),
    ]
    mapper = Mapper(
        is_train=True,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=masks,
        instance_mask_format="bitmask",
        recompute_boxes=masks,
    )
    used = [r for r in split.records if any(not a["iscrowd"] for a in r["annotations"])]
    if not used:
        raise ValueError(f"{split.annotations}: every object is a crowd; there is nothing to train on.")
    empty = len(split.records) - len(used)
    note = f"{split.name}: images without an object, not trained on: {empty} of {len(split.records)}"
    return _data(used, mapper), (note,) if empty else ()


def val_data(split: CocoSplit, *, image_size: int) -> DetectionData:
    """Return all images of the split, scaled to fit into the square that training uses."""
    fit = T.ResizeShortestEdge(image_size, max_size=image_size, sample_style="choice")
    return _data(list(split.records), Mapper(is_train=False, augmentations=[fit], image_format="RGB"))


def _data(records: list[dict[str, Any]], mapper: Mapper) -> DetectionData:
    # serialised: forked loader processes would copy every page of a list of objects by touching its counters
    return DetectionData(DatasetFromList(records, copy=False, serialize=True), mapper)


def _move(segmentation: Any, transforms: T.TransformList) -> Any:
    if isinstance(segmentation, dict):
        # a copy, since the decoder's array is read-only
        return np.array(transforms.apply_segmentation(rle.decode(segmentation)))
    points = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    return [transforms.apply_coords(polygon).reshape(-1) for polygon in points]


def _check_size(record: dict[str, Any], image_HW3: np.ndarray) -> None:
    found, stated = image_HW3.shape[:2], (record["height"], record["width"])
    if found != stated:
        turned = found == stated[::-1]
        hint = " The file's EXIF orientation turns it; annotate the upright image." if turned else ""
        raise ValueError(
            f"{record['file_name']}: the image is {found[1]}x{found[0]} pixels (width x height), its "
            f"annotation file says {stated[1]}x{stated[0]}.{hint}"
        )
