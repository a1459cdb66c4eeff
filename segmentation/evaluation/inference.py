"""From images to a class per pixel: whole images or sliding windows, several scales, flipped or not.

Equal to mmseg's `EncoderDecoder.predict` (whole, slide) and `SegTTAModel` (the mean of softmax over scales and flips)
up to the order of float sums. EoMT's scores, which are no logits, are averaged over scales and flips as they are.
Windows run as one batch, logits are enlarged for a few classes at a time, and the head's coarse maps are not enlarged
before they are fused (segmentation.model.upsampled).

Of a large image the prediction is made region by region, from its first row to its last: the logits of all classes are
enlarged to the image's size for that region alone, and of sliding windows those are held that lie over it. The
prediction is that of the image as a whole but where two classes tie within the rounding of float32 (`resized`).

Axis letters: B batch, C classes in logits and channels in images, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segmentation.evaluation.resized import Span, needed, resized, resized_region
from segmentation.host import EncoderDecoder
from segmentation.model.eomt import EoMTHead
from segmentation.model.upsampled import decode_logits

CLASSES_AT_ONCE = 10
# scores that are enlarged at once, of a few classes: half a GB, on a GPU 8. Fewer classes at once give the same bits
SCORES_AT_ONCE = {"cpu": 2**27, "cuda": 2**31}
# scores per image beyond which its prediction is made by regions: 2 GB, 3.6 megapixels of 150 classes
SCORES_HELD = 2**29
LEAST_CLASSES = 32  # that an image counts with, so that one of 16.8 megapixels is large whatever its classes
SCORES_OF_REGION = {"cpu": 2**24, "cuda": 2**28}  # 64 MB, on a GPU 1 GB; some five times that are held while it is made
WINDOWS_AT_ONCE = 8  # bounds the memory of one forward pass
Batch = dict[str, list[Any]]


@torch.no_grad()
def predict_batch(
    segmentor: EncoderDecoder, batch: Batch, *, scales: Sequence[float] = (1.0,), flip: bool = False
) -> list[Tensor]:
    """Return the class of every pixel, (H, W) uint8 per image at its own size; images of one size run together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (image, sample) in enumerate(zip(batch["inputs"], batch["data_samples"], strict=True)):
        groups.setdefault((*image.shape[1:], *sample.ori_shape), []).append(index)
    predictions: dict[int, Tensor] = {}
    for (height, width, *own_size), members in groups.items():
        chosen = {name: [values[index] for index in members] for name, values in batch.items()}
        padded = segmentor.data_preprocessor(chosen, training=False)["inputs"]
        image_BCHW = padded[..., :height, :width]
        classes_BHW = predict_images(segmentor, image_BCHW, (own_size[0], own_size[1]), scales=scales, flip=flip)
        predictions.update(zip(members, classes_BHW, strict=True))
    return [predictions[index] for index in range(len(predictions))]


def predict_images(
    segmentor: EncoderDecoder,
    image_BCHW: Tensor,
    size: tuple[int, int],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Return the classes of normalised images, (B, H, W) uint8 at `size`.

    Over several views (scales times flips) the softmax is averaged, as in mmseg's SegTTAModel, or scores of EoMT.
    """
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    parts = _parts(segmentor.out_channels, size, image_BCHW)
    seen = (_view(segmentor, image_BCHW, scale=scale, mirrored=mirrored) for scale, mirrored in views)
    pixels = max(size[0] * size[1], image_BCHW.shape[2] * image_BCHW.shape[3] * max(scales) ** 2)
    if max(segmentor.out_channels, LEAST_CLASSES) * pixels > SCORES_HELD:
        return _by_regions(segmentor, list(seen), size)
    if len(views) == 1:
        (view,) = seen
        return best_class(resized(view.logits(part), size) for part in parts)
    total_BCHW = _sum(_shares(segmentor, resized(view.logits(slice(None)), size)) for view in seen)
    return best_class(total_BCHW[:, part] for part in parts)


@dataclass
class Windows:
    """What the head says of windows of some images, made when it is asked for, from the first row to the last."""

    segmentor: EncoderDecoder
    image_BCHW: Tensor
    crop: tuple[int, int]
    """Height and width of a window in pixels."""
    places: list[tuple[int, int, int]]
    """Image, top, left; those that are not made yet, sorted by top."""
    held: list[tuple[int, int, int, Tensor]] = field(default_factory=list)
    """Image, top, left, logits (1, C, h, w)."""

    def over(self, rows: Span) -> list[tuple[int, int, int, Tensor]]:
        """Return the windows that touch some rows; those above are let go and cannot be asked for again."""
        while self.places and self.places[0][1] < rows[1]:
            some, self.places = self.places[:WINDOWS_AT_ONCE], self.places[WINDOWS_AT_ONCE:]
            self.held = [window for window in self.held if window[1] + self.crop[0] > rows[0]]
            height, width = self.crop
            seen = [self.image_BCHW[i, :, top : top + height, left : left + width] for i, top, left in some]
            coarse = decode_logits(self.segmentor, self.segmentor.backbone(torch.stack(seen))).float()
            self.held += [(*place, logits) for place, logits in zip(some, coarse.split(1), strict=True)]
        return [window for window in self.held if window[1] < rows[1] and window[1] + self.crop[0] > rows[0]]


@dataclass(frozen=True)
class View:
    """What the head says of every window of some images, at its own resolution."""

    windows: Windows
    cover_HW: Tensor
    """How many windows lie over each pixel of an image."""
    images: int
    valid: tuple[int, int]
    """Height and width without padding."""
    mirrored: bool = False

    def logits(self, part: slice) -> Tensor:
        """Return the logits of some classes, averaged over the windows, (B, classes, H, W) of the valid pixels."""
        height, width = self.cover_HW.shape
        total_BCHW = self._mean(part, (0, height), (0, width))[..., : self.valid[0], : self.valid[1]]
        return total_BCHW.flip(3) if self.mirrored else total_BCHW

    def region(self, size: tuple[int, int], rows: Span, columns: Span) -> Tensor:
        """Return the logits of all classes, resized to `size`, of some rows and columns, (B, C, rows, columns).

        No rows above those of an earlier call can be asked for.
        """
        of_rows = needed(rows, self.valid[0], size[0])
        left, right = needed(columns, self.valid[1], size[1])
        seen = (self.valid[1] - right, self.valid[1] - left) if self.mirrored else (left, right)
        mean_BCHW = self._mean(slice(None), of_rows, seen)
        mean_BCHW = mean_BCHW.flip(3) if self.mirrored else mean_BCHW
        return resized_region(mean_BCHW, (of_rows[0], left), self.valid, size, rows, columns)

    def _mean(self, part: slice, rows: Span, columns: Span) -> Tensor:
        """Return the mean over the windows of some classes, rows and columns, (B, classes, rows, columns)."""
        total_BCHW: Tensor | None = None
        for image, top, left, coarse in self.windows.over(rows):
            down = max(rows[0], top), min(rows[1], top + self.windows.crop[0])
            across = max(columns[0], left), min(columns[1], left + self.windows.crop[1])
            if total_BCHW is None:
                shape = self.images, coarse[:, part].shape[1], rows[1] - rows[0], columns[1] - columns[0]
                total_BCHW = coarse.new_zeros(shape)
            if across[0] >= across[1]:
                continue
            enlarged = self._enlarged(
                coarse[:, part], (down[0] - top, down[1] - top), (across[0] - left, across[1] - left)
            )
            place = slice(down[0] - rows[0], down[1] - rows[0]), slice(across[0] - columns[0], across[1] - columns[0])
            total_BCHW[image, :, place[0], place[1]] += enlarged[0]
        assert total_BCHW is not None
        return total_BCHW.div_(self.cover_HW[rows[0] : rows[1], columns[0] : columns[1]])

    def _enlarged(self, coarse_1Chw: Tensor, rows: Span, columns: Span) -> Tensor:
        """Return some rows and columns of the logits of a window, at the window's size."""
        if (rows, columns) == ((0, self.windows.crop[0]), (0, self.windows.crop[1])):
            return resized(coarse_1Chw, self.windows.crop)
        of: tuple[int, int] = (coarse_1Chw.shape[2], coarse_1Chw.shape[3])
        down, across = needed(rows, of[0], self.windows.crop[0]), needed(columns, of[1], self.windows.crop[1])
        part = coarse_1Chw[:, :, slice(*down), slice(*across)]
        return resized_region(part, (down[0], across[0]), of, self.windows.crop, rows, columns)


def slide(segmentor: EncoderDecoder, image_BCHW: Tensor, *, crop: tuple[int, int], stride: tuple[int, int]) -> View:
    """Return the view by overlapping windows; the last of a row or column is moved inside.

    A crop as large as the image is the whole image. As in mmseg, windows of a smaller image are smaller.
    """
    images, _, height, width = image_BCHW.shape
    tops, lefts = _starts(height, crop[0], stride[0]), _starts(width, crop[1], stride[1])
    crop = min(crop[0], height), min(crop[1], width)
    places = [(image, top, left) for top in tops for left in lefts for image in range(images)]
    windows = Windows(segmentor, image_BCHW, crop, places)
    rows, columns = _cover(tops, crop[0], height), _cover(lefts, crop[1], width)
    cover_HW = (rows[:, None] * columns).to(image_BCHW.device)
    return View(windows, cover_HW, images, (height, width))


def best_class(parts: Iterable[Tensor]) -> Tensor:
    """Return the class of the highest score, the first of equals, (B, H, W) uint8, from scores of a few classes each.

    A running maximum: enlarged logits of 150 classes are hundreds of MB that are read once, and argmax over an axis of
    large stride is slow on a CPU.
    """
    best: Tensor | None = None
    number = 0
    for score_BCHW in parts:
        for score in score_BCHW.unbind(dim=1):
            if best is None:
                best, class_BHW = score.clone(), torch.zeros_like(score, dtype=torch.uint8)
            else:
                class_BHW.masked_fill_(score > best, number)
                torch.maximum(best, score, out=best)
            number += 1
    return class_BHW


def _sum(maps: Iterable[Tensor]) -> Tensor:
    """Return the sum of maps, of which two are held."""
    total: Tensor | None = None
    for each in maps:
        total = each if total is None else total.add_(each)
    assert total is not None
    return total


def _shares(segmentor: EncoderDecoder, scores_BCHW: Tensor) -> Tensor:
    """Return what is averaged over views."""
    return scores_BCHW if isinstance(segmentor.decode_head, EoMTHead) else scores_BCHW.softmax(dim=1)


def _by_regions(segmentor: EncoderDecoder, views: Sequence[View], size: tuple[int, int]) -> Tensor:
    """Return the classes of images as `predict_images`, made region by region, (B, H, W) uint8."""
    images, device, classes = views[0].images, views[0].cover_HW.device, segmentor.out_channels
    class_BHW = torch.empty((images, *size), dtype=torch.uint8, device=device)
    pixels = max(1, SCORES_OF_REGION["cuda" if device.type == "cuda" else "cpu"] // (images * classes))
    for rows, columns in _regions(size, pixels):
        if len(views) == 1:
            total_BCHW = views[0].region(size, rows, columns)
        else:
            total_BCHW = _sum(_shares(segmentor, view.region(size, rows, columns)) for view in views)
        class_BHW[:, slice(*rows), slice(*columns)] = best_class([total_BCHW])
    return class_BHW


def _regions(size: tuple[int, int], pixels: int) -> Iterator[tuple[Span, Span]]:
    """Yield rows and columns of regions of at most `pixels`: whole rows, or parts of one, from the top."""
    rows, columns = max(1, pixels // size[1]), min(size[1], pixels)
    for top in range(0, size[0], rows):
        for left in range(0, size[1], columns):
            yield (top, min(top + rows, size[0])), (left, min(left + columns, size[1]))


def _parts(classes: int, size: tuple[int, int], image_BCHW: Tensor) -> list[slice]:
    """Return which classes to enlarge at once: few on a CPU, whose caches are small, and few of large images."""
    pixels = image_BCHW.shape[0] * max(size[0] * size[1], image_BCHW.shape[2] * image_BCHW.shape[3])
    room = max(1, SCORES_AT_ONCE["cuda" if image_BCHW.is_cuda else "cpu"] // pixels)
    at_once = min(room, classes if image_BCHW.is_cuda else CLASSES_AT_ONCE)
    return [slice(first, first + at_once) for first in range(0, classes, at_once)]


def _view(segmentor: EncoderDecoder, image_BCHW: Tensor, *, scale: float, mirrored: bool) -> View:
    """Return the view of the images at `scale`, mirrored or not, by the inference that the segmentor's config names."""
    height, width = (max(1, int(side * scale + 0.5)) for side in image_BCHW.shape[2:])
    seen = resized(image_BCHW, (height, width))
    seen = seen.flip(3) if mirrored else seen
    test, patch = segmentor.test_cfg, segmentor.backbone.vit.architecture.patch_size
    if test["mode"] == "slide":
        crop, stride = tuple(test["crop_size"]), tuple(test["stride"])
        short = height < crop[0], width < crop[1]
        padded = _to_patches(seen, patch, axes=short)  # windows are whole patches wherever they begin
    else:
        padded = _to_patches(seen, patch, axes=(True, True))
        crop = stride = padded.shape[2], padded.shape[3]
    view = slide(segmentor, padded, crop=crop, stride=stride)
    return replace(view, valid=(height, width), mirrored=mirrored)


def _to_patches(image_BCHW: Tensor, patch: int, *, axes: tuple[bool, bool]) -> Tensor:
    """Return the image with zeros below and to the right, up to whole patches along the height, the width or both.

    At least two patches: the pyramid's coarsest map has half as many.
    """
    height, width = (
        max(2 * patch, -(-side // patch) * patch) if fill else side
        for side, fill in zip(image_BCHW.shape[2:], axes, strict=True)
    )
    return F.pad(image_BCHW, (0, width - image_BCHW.shape[3], 0, height - image_BCHW.shape[2]))


def _starts(length: int, crop: int, stride: int) -> list[int]:
    """Return where windows begin: every `stride` pixels, the last moved back inside (mmseg's `slide_inference`)."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(number * stride + crop, length) - crop, 0) for number in range(count)]


def _cover(starts: Sequence[int], crop: int, length: int) -> Tensor:
    """Return how many windows cover each place of an axis."""
    cover = torch.zeros(length)
    for start in starts:
        cover[start : start + crop] += 1
    return cover
