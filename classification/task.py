"""Classification as a Task: ImageFolder data, cross-entropy, top-1 and top-5."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from timm.data.mixup import Mixup
from torch import Tensor

from backbones.checkpoint import Normalisation, write_checkpoint
from backbones.initial import start_from
from backbones.param_groups import ParamGroup, param_groups
from backbones.vit import ViT
from classification.config import ClassificationConfig
from classification.data import (
    LabelledImages,
    Sample,
    eval_transform,
    open_split,
    same_classes,
    train_transform,
)
from classification.heads import Classifier
from classification.pictures import draw_predictions
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.task import Facts, ImageResult, InitialWeights

Batch = tuple[Tensor, Tensor, list[str]]


class ClassificationTask:
    """Training of the whole ViT with a mean-pooled head: fine-tuning, or pre-training from labels."""

    primary_metric = "top1"

    def __init__(
        self,
        config: ClassificationConfig,
        *,
        model: Classifier,
        train_data: LabelledImages,
        val_data: LabelledImages,
        facts: Facts,
        normalisation: Normalisation,
        pretraining: bool = False,
    ) -> None:
        """`pretraining` names the task `supervised` and leaves a backbone checkpoint at the end."""
        self.name = "supervised" if pretraining else "classification"
        self.pretraining = pretraining
        self.normalisation = normalisation
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.classes = train_data.folder.classes

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return images (B, C, H, W), labels (B) and ids."""
        images, labels, ids = zip(*samples, strict=True)
        return torch.stack(images), torch.tensor(labels), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Layer-wise decay over the ViT; the head is the last layer."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="backbone.",
        )

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return label, the five likeliest classes and the probability of the first, per image."""
        image_BCHW, label_B, ids = batch
        probability_BK = self.model.logits(image_BCHW).float().softmax(dim=1)
        top = probability_BK.topk(min(5, probability_BK.shape[1]), dim=1)
        rows = zip(ids, label_B.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
        return [
            ImageResult(image_id, {"label": label, "top5": order, "probability": values[0]})
            for image_id, label, order, values in rows
        ]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return top1 and top5 in percent."""
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        first = sum(r.values["label"] == r.values["top5"][0] for r in results)
        five = sum(r.values["label"] in r.values["top5"] for r in results)
        return {"top1": 100 * first / len(results), "top5": 100 * five / len(results)}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write predictions.png: images with their label and the model's answer, mistakes marked."""
        return [draw_predictions(folder / "predictions.png", self.val_data, results, self.classes)]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors where this was a pre-training."""
        if not self.pretraining:
            return []
        path = folder / "backbone.safetensors"
        write_checkpoint(path, self.model.backbone, source="supervised", normalisation=self.normalisation)
        return [path]


def build_task(config: ClassificationConfig, *, data: Path, init: InitialWeights | None) -> ClassificationTask:
    """Return fine-tuning on `data/train` and `data/val`, from the backbone checkpoint `init` or random weights."""
    backbone = ViT(config.backbone, final_norm=False, drop_path=config.drop_path)
    return assemble(config, backbone, data=data, init=init)


def assemble(
    config: ClassificationConfig,
    backbone: ViT,
    *,
    data: Path,
    init: InitialWeights | None,
    pretraining: bool = False,
) -> ClassificationTask:
    """Return the task around a backbone, which gets the declared weights or keeps its random ones."""
    report, normalisation = start_from(backbone, init)
    (train, train_notes), (val, val_notes) = open_split(data, "train"), open_split(data, config.val_split)
    same_classes(train, val)
    size, augment = config.backbone.image_size, config.augment
    mixup = None
    if augment.mixup or augment.cutmix:
        mixup = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            label_smoothing=augment.label_smoothing,
            num_classes=len(train.classes),
        )
    model = Classifier(
        backbone,
        num_classes=len(train.classes),
        head_std=config.head_std,
        label_smoothing=augment.label_smoothing,
        mixup=mixup,
    )
    facts = Facts(
        data=str(data),
        train_split="train",
        val_split=config.val_split,
        train_images=len(train.samples),
        val_images=len(val.samples),
        architecture=asdict(config.backbone),
        weights=report,
        init=init,
        data_notes=(*train_notes, *val_notes),
        flops_per_image=count_flops(backbone, torch.zeros(1, config.backbone.in_chans, *size)),
        extra={"classes": train.classes},
    )
    return ClassificationTask(
        config,
        model=model,
        train_data=LabelledImages(train, train_transform(size, augment, normalisation)),
        val_data=LabelledImages(val, eval_transform(size, config.crop_share, normalisation)),
        facts=facts,
        normalisation=normalisation,
        pretraining=pretraining,
    )
