"""From images to a class per pixel: whole images or sliding windows, several scales, flipped or not.

Equal to mmseg's `EncoderDecoder.predict` (whole, slide) and `SegTTAModel` (the mean of softmax over scales and flips)
up to the order of float sums. Windows run as one batch, logits are enlarged for a few classes at a time, and the
head's coarse maps are not enlarged before they are fused (segmentation.upsampled).

Axis letters: B batch, C classes in logits and channels in images, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segmentation.host import EncoderDecoder
from segmentation.upsampled import decode_logits

CLASSES_AT_ONCE = 10
# scores that are enlarged at once, of a few classes: half a GB, on a GPU 8. Fewer classes at once give the same bits
SCORES_AT_ONCE = {"cpu": 2**27, "cuda": 2**31}
# scores per image up to which the mean over several views is held for all classes: 2 GB, 3.6 megapixels of 150 classes
SCORES_HELD = 2**29
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

    Over several views (scales times flips) the softmax is averaged, as in mmseg's SegTTAModel; for images of more than
    SCORES_HELD scores a few classes at a time, equal up to rounding (1e-6 of a share).
    """
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    parts = _parts(segmentor.out_channels, size, image_BCHW)
    seen = (_view(segmentor, image_BCHW, scale=scale, mirrored=mirrored) for scale, mirrored in views)
    if len(views) == 1:
        (view,) = seen
        return best_class(_resized(view.logits(part), size) for part in parts)
    if segmentor.out_channels * size[0] * size[1] > SCORES_HELD:
        return best_class(_mean_shares(list(seen), size, parts))
    total_BCHW: Tensor | None = None
    for view in seen:
        share_BCHW = _resized(view.logits(slice(None)), size).softmax(dim=1)
        total_BCHW = share_BCHW if total_BCHW is None else total_BCHW.add_(share_BCHW)
    assert total_BCHW is not None
    return best_class(total_BCHW[:, part] for part in parts)


@dataclass(frozen=True)
class View:
    """What the head said of every window of some images, at its own resolution."""

    windows: tuple[tuple[int, int, int, Tensor], ...]
    """Image, top, left, logits (1, C, h, w)."""
    crop: tuple[int, int]
    """Height and width of a window in pixels."""
    cover_HW: Tensor
    """How many windows lie over each pixel of an image."""
    images: int
    valid: tuple[int, int]
    """Height and width without padding."""
    mirrored: bool = False

    def logits(self, part: slice) -> Tensor:
        """Return the logits of some classes, averaged over the windows, (B, classes, H, W) of the valid pixels."""
        first = self.windows[0][3][:, part]
        total_BCHW = first.new_zeros((self.images, first.shape[1], *self.cover_HW.shape))
        for image, top, left, coarse in self.windows:
            enlarged = _resized(coarse[:, part], self.crop)
            total_BCHW[image, :, top : top + self.crop[0], left : left + self.crop[1]] += enlarged[0]
        total_BCHW = total_BCHW.div_(self.cover_HW)[..., : self.valid[0], : self.valid[1]]
        return total_BCHW.flip(3) if self.mirrored else total_BCHW


def slide(segmentor: EncoderDecoder, image_BCHW: Tensor, *, crop: tuple[int, int], stride: tuple[int, int]) -> View:
    """Return the view by overlapping windows; the last of a row or column is moved inside.

    A crop as large as the image is the whole image. As in mmseg, windows of a smaller image are smaller.
    """
    images, _, height, width = image_BCHW.shape
    tops, lefts = _starts(height, crop[0], stride[0]), _starts(width, crop[1], stride[1])
    crop = min(crop[0], height), min(crop[1], width)
    places = [(image, top, left) for top in tops for left in lefts for image in range(images)]
    windows = []
    for start in range(0, len(places), WINDOWS_AT_ONCE):
        some = places[start : start + WINDOWS_AT_ONCE]
        seen = [image_BCHW[i, :, top : top + crop[0], left : left + crop[1]] for i, top, left in some]
        coarse = decode_logits(segmentor, segmentor.backbone(torch.stack(seen))).float()
        windows += [(*place, logits) for place, logits in zip(some, coarse.split(1), strict=True)]
    rows, columns = _cover(tops, crop[0], height), _cover(lefts, crop[1], width)
    cover_HW = (rows[:, None] * columns).to(image_BCHW.device)
    return View(tuple(windows), crop, cover_HW, images, (height, width))


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


def _mean_shares(views: Sequence["View"], size: tuple[int, int], parts: Sequence[slice]) -> Iterator[Tensor]:
    """Yield the sum over the views of softmax, a few classes at a time: one map per view is held, none per class."""
    norms = []
    for view in views:
        norm_BHW: Tensor | None = None
        for part in parts:
            for score_BHW in _resized(view.logits(part), size).unbind(dim=1):
                norm_BHW = score_BHW.clone() if norm_BHW is None else torch.logaddexp(norm_BHW, score_BHW, out=norm_BHW)
        assert norm_BHW is not None
        norms.append(norm_BHW[:, None])
    for part in parts:
        total_BCHW: Tensor | None = None
        for view, norm_B1HW in zip(views, norms, strict=True):
            share_BCHW = _resized(view.logits(part), size).sub(norm_B1HW).exp_()
            total_BCHW = share_BCHW if total_BCHW is None else total_BCHW.add_(share_BCHW)
        assert total_BCHW is not None
        yield total_BCHW


def _parts(classes: int, size: tuple[int, int], image_BCHW: Tensor) -> list[slice]:
    """Return which classes to enlarge at once: few on a CPU, whose caches are small, and few of large images."""
    pixels = image_BCHW.shape[0] * max(size[0] * size[1], image_BCHW.shape[2] * image_BCHW.shape[3])
    room = max(1, SCORES_AT_ONCE["cuda" if image_BCHW.is_cuda else "cpu"] // pixels)
    at_once = min(room, classes if image_BCHW.is_cuda else CLASSES_AT_ONCE)
    return [slice(first, first + at_once) for first in range(0, classes, at_once)]


def _view(segmentor: EncoderDecoder, image_BCHW: Tensor, *, scale: float, mirrored: bool) -> View:
    """Return the view of the images at `scale`, mirrored or not, by the inference that the segmentor's config names."""
    height, width = (max(1, int(side * scale + 0.5)) for side in image_BCHW.shape[2:])
    seen = _resized(image_BCHW, (height, width))
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


def _resized(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(map_BCHW.shape[2:]) == size:
        return map_BCHW
    return F.interpolate(map_BCHW, size=size, mode="bilinear", align_corners=False)


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
