"""A user's own augmentation of training samples: what the function is given, when, and how what it returns is checked.

`--augment-function FILE.py:NAME` names `function(sample, rng) -> sample`. It is applied to every training sample after
the recipe's own crops, flips and colours, on uint8 pixels: before pixels are normalised, and so before random erasing,
and before what mixes the images of a batch (mixup, CutMix) or masks patches. An evaluation never applies it.

`rng` is a generator of the sample's own (engine.training.seeding), so that a resumed run sees the same samples, with
any number of loader processes. The recipe's own draws are the same with the function as without.

The sample may be changed in place or be another of the same class. The pixels keep their height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from engine.config import RunConfig
from engine.functions import Function, load, source_of
from engine.recipe import with_augment_source
from engine.training.seeding import own_generator

IGNORED = 255
"""Of a label map: no class; neither trained on nor counted."""
SLACK = 1.0  # pixels by which the pixels of a mask may lie outside of its box: annotations are rounded


@dataclass
class ImageSample:
    """An image without targets, of pre-training; MoCo v3 and repeated crops give every view by itself."""

    image: np.ndarray
    """RGB, uint8 (height, width, 3)."""


@dataclass
class ClassSample(ImageSample):
    """An image with its class."""

    label: int
    """From 0, in the order of the sorted names of the class folders."""


@dataclass
class SegmentationSample(ImageSample):
    """An image with the class of every pixel."""

    label_map: np.ndarray
    """uint8 (height, width): classes from 0, and 255 for what is ignored."""


@dataclass
class DetectionSample(ImageSample):
    """An image with its objects, N of them; crowds are not among them. Objects may be added and left out."""

    boxes: np.ndarray
    """float32 (N, 4): left, top, right, bottom in pixels."""
    labels: np.ndarray
    """int64 (N): classes from 0, in the order of the categories' ids."""
    masks: np.ndarray | None
    """bool (N, height, width); None where masks are not trained."""


S = TypeVar("S", bound=ImageSample)


@dataclass
class Augment:
    """The function that a run declares. It is loaded at its first use in a process, never where nothing is trained."""

    name: str
    """As on the command line."""
    source: str
    """What `source_of` says of it."""
    _function: Function | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return it without the function, which a loader process loads by itself."""
        return {**self.__dict__, "_function": None}

    def check(self) -> None:
        """Load the function. Raises as `engine.functions.load`."""
        self._function = load(self.name, self.source, arguments=2)

    def __call__(self, sample: S, image_id: str, *, classes: int = 0) -> S:
        """Return what the function makes of the training sample of an image; labels are below `classes`.

        Raises ValueError that names function, image and value where that is no such sample, and where the function
        raises an exception.
        """
        if self._function is None:
            self.check()
        assert self._function is not None
        shape = sample.image.shape
        objects = isinstance(sample, DetectionSample) and sample.masks is not None
        try:
            made = self._function(sample, own_generator("augment"))
        except Exception as error:  # whatever the user's function raises
            raise ValueError(
                f"--augment-function {self.name}: {image_id}: it raised {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error
        fault = None if type(made) is type(sample) else f"returned {_kind(made)}; return the {type(sample).__name__}"
        if fault is None:
            fault = _image_fault(made.image, shape) or _target_fault(made, classes, masks=objects)
        if fault is not None:
            raise ValueError(f"--augment-function {self.name}: {image_id}: {fault}.")
        result: S = made
        return result

    def on_image(self, image_HW3: np.ndarray, image_id: str) -> np.ndarray:
        """Return what the function makes of an image without targets."""
        return self(ImageSample(image_HW3), image_id).image

    def of(self, image_id: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return what changes the pixels of this image, which has no targets."""
        return lambda image_HW3: self.on_image(image_HW3, image_id)


def augment_of(run: RunConfig) -> Augment | None:
    """Return the augmentation that a run declares, None where it declares none; nothing is loaded."""
    if run.augment_function is None:
        return None
    return Augment(run.augment_function, run.augment_source or source_of(run.augment_function))


def with_augment(config: Any) -> Any:
    """Return the configuration of a run that begins with the source of the augmentation that it declares.

    Raises FileNotFoundError or ValueError for a function that is not there or cannot be called with (sample, rng).
    """
    if config.run.augment_function is None:
        return config
    try:
        config = with_augment_source(config)
        Augment(config.run.augment_function, config.run.augment_source).check()
    except (ValueError, OSError) as error:
        raise ValueError(f"--augment-function {error}") from error
    return config


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"


def _image_fault(image: Any, shape: tuple[int, ...]) -> str | None:
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == shape:
        return None
    return f"its image is {_kind(image)}, not an array of uint8 {shape}, the shape that it was given"


def _target_fault(sample: Any, classes: int, *, masks: bool) -> str | None:
    if isinstance(sample, ClassSample):
        return _label_fault(sample.label, classes)
    if isinstance(sample, SegmentationSample):
        return _map_fault(sample, classes)
    return _objects_fault(sample, classes, masks=masks) if isinstance(sample, DetectionSample) else None


def _label_fault(label: Any, classes: int) -> str | None:
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and 0 <= label < classes:
        return None
    shown = label if isinstance(label, int | float | str | np.generic) else _kind(label)
    return f"its label is {shown}, not a whole number from 0 to {classes - 1}"


def _map_fault(sample: SegmentationSample, classes: int) -> str | None:
    label_map, size = sample.label_map, sample.image.shape[:2]
    if not isinstance(label_map, np.ndarray) or label_map.dtype != np.uint8 or label_map.shape != size:
        return f"its label_map is {_kind(label_map)}, not an array of uint8 {size}"
    wrong = (label_map >= classes) & (label_map != IGNORED)
    if not wrong.any():
        return None
    row, column = np.argwhere(wrong)[0]
    value = label_map[row, column]
    return f"its label_map is {value} at row {row}, column {column}; give 0 to {classes - 1}, or {IGNORED} (ignored)"


def _objects_fault(sample: DetectionSample, classes: int, *, masks: bool) -> str | None:
    boxes, labels, size = sample.boxes, sample.labels, sample.image.shape[:2]
    if not isinstance(boxes, np.ndarray) or boxes.dtype != np.float32 or boxes.shape[1:] != (4,):
        return f"its boxes are {_kind(boxes)}, not an array of float32 (objects, 4)"
    count = len(boxes)
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (count,):
        return f"its labels are {_kind(labels)}, not an array of int64 ({count},), one for each box"
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        number = int(outside.argmax())
        return f"its labels[{number}] is {labels[number]}, not from 0 to {classes - 1}"
    left, top, right, bottom = boxes.T
    inside = (left >= 0) & (left < right) & (right <= size[1]) & (top >= 0) & (top < bottom) & (bottom <= size[0])
    if not inside.all():  # NaN is not inside either
        number = int(inside.argmin())
        return (
            f"its boxes[{number}] is {boxes[number].tolist()}, not left < right within 0 to {size[1]} and top < bottom "
            f"within 0 to {size[0]} (the image has {size[1]} x {size[0]} pixels); clip it, or leave the object out"
        )
    if not masks:
        return None if sample.masks is None else f"its masks are {_kind(sample.masks)}, and it was given None; leave it"
    return _masks_fault(sample, (count, *size))


def _masks_fault(sample: DetectionSample, shape: tuple[int, ...]) -> str | None:
    masks = sample.masks
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.shape != shape:
        return f"its masks are {_kind(masks)}, not an array of bool {shape}, one for each box"
    for number, (mask_HW, box) in enumerate(zip(masks, sample.boxes, strict=True)):
        rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        if not len(rows):
            return f"its masks[{number}] has no pixel; leave the object out"
        around = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        beyond = np.concatenate([box[:2] - around[:2], around[2:] - box[2:]])
        if beyond.max() > SLACK:
            spans = f"its masks[{number}] spans {around.tolist()}"
            return f"{spans}, beyond its box {box.tolist()}; move boxes and masks alike"
    return None
