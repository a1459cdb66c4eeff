"""A finished detection run: what its model says of images, from the run's folder alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.weights.normalisation import Normalisation
from detection.config import DetectionConfig
from detection.data.mapping import image_sample
from detection.data.store import Category
from detection.evaluation.draw import MIN_SCORE, draw_detections
from detection.evaluation.results import coco_detections
from detection.model.test_time import Inference
from detection.task import detector, vit_of
from engine.records.record import RunRecord
from engine.runs.export import Exportable, Normalised
from engine.runs.trained import stated


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a record says of the classes."""

    categories: tuple[tuple[int | str, str], ...]
    """Number in the annotation file, and name."""
    masks: bool


class TrainedDetector:
    """A detector of images of any origin."""

    def __init__(
        self, config: DetectionConfig, *, model: nn.Module, categories: Sequence[Category], masks: bool
    ) -> None:
        self.config, self.model, self.categories, self.masks = config, model, categories, masks
        self.min_score = MIN_SCORE
        """Of the detections that are drawn."""
        self._infer = Inference(model, config)
        self._names = {category.id: category.name for category in categories}

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return `height`, `width` and `detections` in COCO's results form with the name of each category.

        The model is in eval mode. Raises UnreadableImageError.
        """
        return self.answer([self.sample(path)])[0]

    def sample(self, path: Path) -> dict[str, Any]:
        """Return an image file as detectron2 takes it. Raises UnreadableImageError."""
        return image_sample(path, image_size=self._infer.image_size)

    def size(self, sample: dict[str, Any]) -> tuple[int, int]:
        """Return the height and width in pixels that the model is given of any sample: the square that is filled up."""
        return self.config.image_size, self.config.image_size

    def answer(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what `predict_image` says of each of some samples, which go through together."""
        answers = []
        for sample, output in zip(samples, self._infer(list(samples)), strict=True):
            found = coco_detections(output["instances"], self.categories, masks=self.masks)
            named = [{"category": self._names[detection["category_id"]], **detection} for detection in found]
            answers.append({"height": sample["height"], "width": sample["width"], "detections": named})
        return answers

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        """Write a PNG of the image with its detections of `min_score` and more."""
        draw_detections(picture, str(path), found=values["detections"], names=self._names, min_score=self.min_score)
        return [picture]

    def exportable(self) -> Exportable:
        """Return the maps of backbone and pyramid as a function of the image."""
        model: Any = self.model
        backbone = model.backbone
        module = Normalised(_Maps(backbone), mean=model.pixel_mean, std=model.pixel_std)
        side = self.config.image_size
        return Exportable(module=module, size=(side, side), outputs=tuple(backbone.output_shape()))


class _Maps(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image_BCHW).values())


def trained_model(
    config: DetectionConfig, *, record: RunRecord, source: Path, normalisation: Normalisation
) -> TrainedDetector:
    """Return the detector of a record, which lies in `source`, with random weights."""
    said = stated(Stated, record, source)
    categories = tuple(Category(number, name) for number, name in said.categories)
    model = detector(
        config,
        vit_of(config),
        num_classes=len(categories),
        masks=said.masks,
        normalisation=normalisation,
        class_images=[1] * len(categories),  # the loss alone asks for them
    )
    return TrainedDetector(config, model=model, categories=categories, masks=said.masks)
