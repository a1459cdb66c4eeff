"""A finished classification run: what its model says of images, from the run's folder alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.normalise import Normalise
from backbones.weights.normalisation import Normalisation
from classification.config import ClassificationConfig
from classification.data import eval_transform
from classification.heads import Classifier
from classification.pictures import draw_prediction
from classification.robustness import Known
from classification.spec import CLASSIFICATION
from classification.task import classifier, vit_of
from engine.channels import refuse_channels
from engine.config import Workers
from engine.images.reading import read_picture
from engine.records.record import RunRecord
from engine.runs.export import Exportable, Normalised
from engine.runs.trained import On, open_trained, stated


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a record says of the classes."""

    classes: tuple[str, ...]


class TrainedClassifier:
    """A classifier of images of any origin."""

    def __init__(
        self, config: ClassificationConfig, *, model: Classifier, classes: list[str], normalisation: Normalisation
    ) -> None:
        self.config, self.model, self.classes, self.normalisation = config, model, classes, normalisation
        self._view = eval_transform(config.backbone.image_size, config.crop_pct, normalisation)

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return the five likeliest classes of an image file and their probabilities, the model being in eval mode.

        Raises UnreadableImageError.
        """
        return self.answer([self.sample(path)])[0]

    def sample(self, path: Path) -> Tensor:
        """Return an image file as the model takes it, (C, H, W). Raises UnreadableImageError."""
        return self._view(read_picture(path, self._view.channels))

    def size(self, sample: Tensor) -> tuple[int, int]:
        """Return the height and width in pixels that the model is given of a sample."""
        height, width = sample.shape[1:]
        return height, width

    def answer(self, samples: Sequence[Tensor]) -> list[dict[str, Any]]:
        """Return what `predict_image` says of each of some samples, by one forward pass."""
        image_BCHW = torch.stack(list(samples)).to(self.model.head.weight.device)
        top = self.model.logits(image_BCHW).float().softmax(dim=1).topk(min(5, len(self.classes)))
        return [
            {"classes": [self.classes[i] for i in indices], "probabilities": values}
            for indices, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        """Write the image beside bars of what `predict_image` returned."""
        said = {"classes": values["classes"], "probabilities": values["probabilities"]}
        draw_prediction(picture, path, channels=self._view.channels, **said)
        return [picture]

    def exportable(self) -> Exportable:
        """Return the logits as a function of the image. Raises ValueError for images of other than three channels."""
        refuse_channels(self._view.channels, "an exported model")
        mean, std = (255 * torch.tensor(values) for values in (self.normalisation.mean, self.normalisation.std))
        module = Normalised(_Logits(self.model), mean=mean, std=std)
        return Exportable(module=module, size=self.config.backbone.image_size, outputs=("logits",))


class _Logits(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.classifier.logits(image_BCHW)


def trained_model(
    config: ClassificationConfig, *, record: RunRecord, source: Path, normalisation: Normalisation
) -> TrainedClassifier:
    """Return the classifier of a record, which lies in `source`, with random weights."""
    classes = list(stated(Stated, record, source).classes)
    model = classifier(config, vit_of(config), num_classes=len(classes), normalise=Normalise(normalisation))
    return TrainedClassifier(config, model=model, classes=classes, normalisation=normalisation)


def known_by(run: Path, on: On, *, resized: bool, workers: Workers, say: Callable[[str], None]) -> Known:
    """Return the model of the last checkpoint of a run with its evaluation transform.

    `resized` False crops the centre alone; `workers` processes read the images; `say` is told what is read as the
    record says. Raises as `open_trained`, and ValueError for images of other than three channels.
    """
    opened = open_trained(run, {CLASSIFICATION.name: CLASSIFICATION}, on, say=say)
    trained, fabric = opened.trained, opened.fabric
    assert isinstance(trained, TrainedClassifier)  # the only one that it makes
    refuse_channels(trained.config.backbone.in_chans, "tools/robustness.py")
    model, config = trained.model, trained.config

    def logits(image_BCHW: Tensor) -> Tensor:
        with fabric.autocast():
            return model.logits(image_BCHW)

    crop_pct = config.crop_pct if resized else 1.0
    return Known(
        logits=logits,
        classes=trained.classes,
        view=eval_transform(config.backbone.image_size, crop_pct, trained.normalisation),
        fabric=fabric,
        batch_size=config.run.eval_batch_size,
        workers=workers,
    )
