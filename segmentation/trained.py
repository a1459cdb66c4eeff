"""A finished segmentation run: what its model says of images, from the run's folder alone."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.weights.normalisation import Normalisation
from engine.channels import refuse_channels
from engine.images.arrays import RGB
from engine.images.file import say_need
from engine.records.record import RunRecord
from engine.runs.export import Exportable, Normalised
from engine.runs.trained import stated, stated_labels
from segmentation.config import SegmentationConfig
from segmentation.data.classes import Classes, Colour, palette_of
from segmentation.data.mapping import collate, image_pipeline
from segmentation.evaluation.predictions import as_values, draw_overlay, from_values, write_index
from segmentation.host import EncoderDecoder
from segmentation.task import SegmentationModel, segmentation_model

# of an image that is predicted and drawn, beside the model: its decoded pixels twice, and its prediction; 0.6 GB
# measured for 100 megapixels
BYTES_PER_PIXEL = 8
# of an image that is seen whole, in one forward pass at the size that `resize` gives it: 400 measured of ViT-B, UPerNet
WHOLE_BYTES_PER_PIXEL = 500
# besides of EoMT, which enlarges every mask and adds them up for every class: float32, masks twice while they enlarge
BYTES_PER_MASK, BYTES_PER_CLASS = 8, 4
WHOLE_SAID_FROM = 10**7  # pixels


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a record says of the classes."""

    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What label maps are written with."""

    palette: tuple[Colour, ...]
    """RGB of every class."""
    numbers: tuple[int, ...]
    """That the data set's own label maps store for every class."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no label map of 8 bits holds."""
        values = [*self.numbers, *(value for colour in self.palette for value in colour)]
        if len(self.palette) != len(self.numbers) or not all(0 <= value <= 255 for value in values):
            raise ValueError(
                f"a palette of {len(self.palette)} colours and {len(self.numbers)} numbers: they are not one of each "
                "class, from 0 to 255"
            )


class TrainedSegmentor:
    """A segmentor of images of any origin."""

    def __init__(
        self, config: SegmentationConfig, *, model: SegmentationModel, classes: Sequence[str], labels: Labels
    ) -> None:
        self.config, self.model, self.classes, self.labels = config, model, list(classes), labels

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return the classes found in an image file, with masks as COCO's run-length code; the model is in eval mode.

        Raises UnreadableImageError.
        """
        return self.answer([self.sample(path)])[0]

    def sample(self, path: Path) -> dict[str, Any]:
        """Return an image file as mmseg takes it; says what a large one needs. Raises UnreadableImageError."""
        channels = self.config.backbone.in_chans
        if channels == RGB:
            say_need(path, BYTES_PER_PIXEL)
        sample: Any = {"img_path": str(path), "image_id": path.name}
        seen_at = max(self.config.test_scales)
        for transform in image_pipeline(resize=self.config.resize, seen_at=seen_at, channels=channels):
            sample = transform(sample)
        if self.config.slide is None:
            need = WHOLE_BYTES_PER_PIXEL
            if self.config.head.kind == "eomt":
                need += BYTES_PER_MASK * self.config.head.queries + BYTES_PER_CLASS * len(self.classes)
            _say_whole(path, sample["inputs"].shape[1:], max(self.config.test_scales), need)
        return dict(sample)

    def size(self, sample: dict[str, Any]) -> tuple[int, int]:
        """Return the height and width in pixels that the model is given of a sample, before windows and scales."""
        height, width = sample["inputs"].shape[1:]
        return height, width

    def answer(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what `predict_image` says of each of some samples; those of one size go through together."""
        found = self.model.predict(collate(samples))
        return [as_values(class_HW.cpu().numpy(), self.classes) for class_HW in found]

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        """Write the image with the classes over it, and beside it `<picture>_labels.png`, an index PNG with a palette.

        Its numbers are those of the data set's own label maps.
        """
        class_HW, palette = from_values(values), np.array(self.labels.palette, dtype=np.uint8)
        channels = self.config.backbone.in_chans
        draw_overlay(picture, path, class_HW, names=self.classes, palette_C3=palette, channels=channels)
        labels = picture.with_name(f"{picture.stem}_labels.png")
        return [picture, write_index(labels, class_HW, palette, self.labels.numbers)]

    def exportable(self) -> Exportable:
        """Return the logits of every pixel of a training crop as a function of the image.

        Raises ValueError for images of other than three channels.
        """
        refuse_channels(self.config.backbone.in_chans, "an exported model")
        segmentor = self.model.segmentor
        pixels = segmentor.data_preprocessor
        module = Normalised(_Logits(segmentor), mean=pixels.mean, std=pixels.std)
        return Exportable(module=module, size=self.config.backbone.image_size, outputs=("logits",))


def _say_whole(path: Path, size: Sequence[int], scale: float, per_pixel: int) -> None:
    """Say on stderr what an image takes that is seen whole, `per_pixel` bytes, where that is much."""
    height, width = (round(side * scale) for side in size)
    if height * width >= WHOLE_SAID_FROM:
        need = height * width * per_pixel / 1e9
        text = (
            f"note: {path}: seen whole at {width} x {height} pixels, in one forward pass, for which some {need:.1f} GB "
            "of memory are needed; a recipe with a smaller `resize`, or with windows (`slide`), needs less."
        )
        print(text, file=sys.stderr, flush=True)


class _Logits(nn.Module):
    def __init__(self, segmentor: EncoderDecoder) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image_BCHW: Tensor) -> Tensor:
        coarse = self.segmentor.decode_head(self.segmentor.extract_feat(image_BCHW))
        return F.interpolate(coarse, size=image_BCHW.shape[2:], mode="bilinear", align_corners=False)


def trained_model(
    config: SegmentationConfig, *, record: RunRecord, source: Path, normalisation: Normalisation
) -> TrainedSegmentor:
    """Return the segmentor of a record, which lies in `source`, with random weights."""
    classes = stated(Stated, record, source).classes
    labels = stated_labels(Labels, record, source) or _labels_of_before(config, classes, source)
    if len(labels.numbers) != len(classes):
        raise ValueError(f"{source}: labels: {len(labels.numbers)} numbers for {len(classes)} classes.")
    model = segmentation_model(config, num_classes=len(classes), normalisation=normalisation, initialise=False)
    return TrainedSegmentor(config, model=model, classes=classes, labels=labels)


def _labels_of_before(config: SegmentationConfig, classes: Sequence[str], source: Path) -> Labels:
    """Return labels for a record that does not state them, and say so: the data set's own may be others."""
    first = 1 if config.layout == "ade20k" else 0
    print(
        f"note: {source}, a record of before, states no colours and no numbers of the label maps: the colours are this "
        f"project's, and label maps are written with the numbers {first} to {first + len(classes) - 1}.",
        file=sys.stderr,
    )
    colours = palette_of(Classes(tuple(classes), None)).tolist()
    return Labels(
        palette=tuple((red, green, blue) for red, green, blue in colours),
        numbers=tuple(range(first, first + len(classes))),
    )
