"""Images and objects for training and evaluation: detectron2's mapper over checked annotations.

Training follows ViTDet's large-scale jitter (arXiv 2203.16527, A.2): flip, random scale, crop to a square.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances

from detection.data.coco import CocoSplit, Records
from detection.data.repeat import repeat_factors, repeated
from engine.augment import Augment, DetectionSample
from engine.config import LabelFraction
from engine.images.file import ORIENTATION, opened
from engine.images.reading import read_rgb
from engine.subset import part_of

ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class JitterScale(T.ResizeScale):
    """detectron2's ResizeScale, for images too that are so thin that a side would be rounded to 0 pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the resizing of an image (H, W, 3)."""
        return _at_least_a_pixel(super().get_transform(image))


class FitSquare(T.ResizeShortestEdge):
    """detectron2's ResizeShortestEdge, for images too that are so thin that a side would be rounded to 0 pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the resizing of an image (H, W, 3)."""
        return _at_least_a_pixel(super().get_transform(image))


def _at_least_a_pixel(resize: Any) -> T.Transform:
    if min(resize.new_h, resize.new_w) >= 1:
        return resize
    return T.ResizeTransform(resize.h, resize.w, max(1, resize.new_h), max(1, resize.new_w), resize.interp)


class Mapper(DatasetMapper):
    """detectron2's mapper with images read by engine.images.reading, and masks rasterised after the transforms."""

    own: "OwnAugment | None" = None
    """The user's own augmentation, of training samples."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return `image` (3, H, W) uint8 RGB and, in training, `instances`, beside the record's own fields.

        Raises UnreadableImageError, and ValueError where the file has another size than its record.
        """
        sample = dict(dataset_dict)
        image_HW3 = np.asarray(read_rgb(sample["file_name"]))
        _check_size(sample, image_HW3)
        augmented = T.AugInput(image_HW3)
        transforms = self.augmentations(augmented)
        sample["image"] = _tensor(augmented.image)
        if self.is_train:
            self._transform_annotations(sample, transforms, augmented.image.shape[:2])
            if self.own is not None:
                self.own(sample)
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
        objects, masks = [], []
        for source in dataset_dict.pop("annotations"):
            if source["iscrowd"]:
                continue
            if self.use_instance_mask:
                mask = _moved_mask(source["segmentation"], transforms, image_shape)
                if not rle.area(mask):  # cropped away: neither decoded nor trained on
                    continue
                masks.append(mask)
            plain = {key: value for key, value in source.items() if key != "segmentation"}
            objects.append(detection_utils.transform_instance_annotations(plain, transforms, image_shape))
        instances = detection_utils.annotations_to_instances(objects, image_shape)
        if self.use_instance_mask:
            instances.gt_masks = _decoded(masks, image_shape)
        if self.recompute_boxes and masks:
            # the box of what the crop left of a mask is smaller than what it left of the box
            box_N4 = torch.as_tensor(np.array([rle.toBbox(mask) for mask in masks]), dtype=torch.float32)
            instances.gt_boxes = Boxes(torch.cat([box_N4[:, :2], box_N4[:, :2] + box_N4[:, 2:]], dim=1))
        # by the boxes alone: a mask that has a pixel is left
        dataset_dict["instances"] = detection_utils.filter_empty_instances(instances, by_mask=False)


@dataclass(frozen=True)
class OwnAugment:
    """The user's own augmentation of an image and its objects."""

    augment: Augment
    classes: int

    def __call__(self, sample: dict[str, Any]) -> None:
        """Put what the function makes of `image` and `instances` in their place. Raises ValueError for no sample."""
        instances: Instances = sample["instances"]
        masks = instances.gt_masks.tensor.numpy().copy() if instances.has("gt_masks") else None
        boxes = instances.gt_boxes.tensor.numpy().astype(np.float32)
        image_HW3 = np.array(sample["image"].permute(1, 2, 0).numpy(), order="C")
        given = DetectionSample(image_HW3, boxes, instances.gt_classes.numpy().astype(np.int64), masks)
        made = self.augment(given, sample["file_name"], classes=self.classes)
        changed = Instances(instances.image_size)
        changed.gt_boxes = Boxes(torch.from_numpy(made.boxes.copy()))
        changed.gt_classes = torch.from_numpy(made.labels.copy())
        if made.masks is not None:
            changed.gt_masks = BitMasks(torch.from_numpy(made.masks.copy()))
        sample["image"], sample["instances"] = _tensor(made.image), changed


@dataclass(frozen=True)
class DetectionData:
    """A split's mapped images, as the training loop indexes them."""

    records: Records
    mapper: Mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.mapper(self.records[index])

    def image_id(self, index: int) -> str:
        """The image's file name in the annotations."""
        return self.records.name(index)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Which images come more than once in a pass (detection.data.repeat)."""

    threshold: float
    """Share of images below which a class is rare."""
    seed: int
    """Of the chance by which fractions become whole numbers."""


def train_data(
    split: CocoSplit,
    *,
    image_size: int,
    scale_jitter: tuple[float, float],
    flip: bool,
    masks: bool,
    empty_images: bool = False,
    part: LabelFraction | None = None,
    repeats: Repeats | None = None,
    augment: Augment | None = None,
) -> tuple[DetectionData, tuple[str, ...]]:
    """Return the images that have an object other than a crowd, and notes of those that have none and of repeats.

    With `empty_images` those without any annotation are among them. `part` leaves a fraction of these. `augment` is the
    user's own augmentation.
    """
    low, high = scale_jitter
    if not 0 < low <= high:
        raise ValueError(f"scale_jitter {scale_jitter} must be two positive factors in ascending order.")
    augmentations = [
        *([T.RandomFlip(horizontal=True)] if flip else []),
        JitterScale(min_scale=low, max_scale=high, target_height=image_size, target_width=image_size),
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
    if augment is not None:
        mapper.own = OwnAugment(augment, len(split.categories))
    records = split.records
    has_object = records.objects > 0
    used = np.flatnonzero(has_object | (records.empty if empty_images else False))
    notes = []
    if unused := len(records) - len(used):
        notes.append(f"{split.name}: images without an object, not trained on: {unused} of {len(records)}")
    if negatives := len(used) - int(has_object.sum()):
        notes.append(f"{split.name}: images without an object, trained on as background: {negatives} of {len(records)}")
    chosen = records[used]
    if part is not None and part.label_fraction is not None:
        names, classes = [chosen.name(n) for n in range(len(used))], [c.name for c in split.categories]
        numbers, note = part_of(names, chosen.image_classes, part, classes=classes)
        used, chosen = used[numbers], chosen[numbers]
        notes.append(f"{split.name}: {note}")
    if repeats is not None:
        factor_I = repeat_factors(
            chosen.image_classes, images=len(used), classes=len(split.categories), threshold=repeats.threshold
        )
        order = repeated(factor_I, np.random.default_rng(repeats.seed))
        notes.append(
            f"{split.name}: images repeated for a class rarer than {repeats.threshold:g}: {(factor_I > 1).sum()} of "
            f"{len(used)}; a pass over the data is {len(order)} images"
        )
        chosen = chosen[order]
    return DetectionData(chosen, mapper), tuple(notes)


def val_data(split: CocoSplit, *, image_size: int | None) -> DetectionData:
    """Return all images of the split, scaled to fit into the square that training uses, or as they are for None."""
    augmentations = [] if image_size is None else [_fit(image_size)]
    mapper = Mapper(is_train=False, augmentations=augmentations, image_format="RGB")
    return DetectionData(split.records, mapper)


def image_sample(path: Path, *, image_size: int | None) -> dict[str, Any]:
    """Return an image of any origin as the model takes it, scaled as `val_data` does. Raises UnreadableImageError."""
    augmented = T.AugInput(np.asarray(read_rgb(path)))
    height, width = augmented.image.shape[:2]
    if image_size is not None:
        _fit(image_size)(augmented)
    return {"file_name": str(path), "height": height, "width": width, "image": _tensor(augmented.image)}


def _fit(image_size: int) -> T.Augmentation:
    return FitSquare(image_size, max_size=image_size, sample_style="choice")


def _tensor(image_HW3: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(image_HW3.transpose(2, 0, 1)))


def _moved_mask(segmentation: Any, transforms: T.TransformList, image_shape: tuple[int, int]) -> dict[str, Any]:
    """Return the transformed mask as run lengths, whose area and box need no pixels."""
    mask: dict[str, Any]
    if isinstance(segmentation, dict):
        # a copy, since the decoder's array is read-only
        mask = rle.encode(np.array(transforms.apply_segmentation(rle.decode(segmentation)), order="F"))
        return mask
    points = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    moved = [transforms.apply_coords(polygon).reshape(-1) for polygon in points]
    mask = rle.merge(rle.frPyObjects(moved, *image_shape))
    return mask


def _decoded(masks: list[dict[str, Any]], image_shape: tuple[int, int]) -> BitMasks:
    if not masks:
        return BitMasks(torch.zeros(0, *image_shape, dtype=torch.bool))
    # the decoder writes column after column; transposing in torch is several times faster than in NumPy
    mask_NWH = torch.from_numpy(rle.decode(masks).transpose(2, 1, 0).view(np.bool_))
    return BitMasks(mask_NWH.transpose(1, 2).contiguous())


def _check_size(record: dict[str, Any], image_HW3: np.ndarray) -> None:
    found, stated = image_HW3.shape[:2], (record["height"], record["width"])
    if found != stated:
        hint = exchanged(Path(record["file_name"])) if found == stated[::-1] else ""
        raise ValueError(
            f"{record['file_name']}: the image is {found[1]}x{found[0]} pixels (width x height), its "
            f"annotation file says {stated[1]}x{stated[0]}.{hint}"
        )


def exchanged(path: Path) -> str:
    """Return why the upright image has the stated width as its height: its EXIF orientation, or the annotations."""
    with opened(path, str(path)) as image:
        rotated = image.getexif().get(ORIENTATION) in ON_ITS_SIDE
    if rotated:
        return " The file's EXIF orientation turns it; annotate the upright image."
    return " The annotations have width and height exchanged; the file has no EXIF orientation that turns it."
