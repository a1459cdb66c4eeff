"""Classification as a Task: ImageFolder data, cross-entropy, top-1 and top-5."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from backbones.normalise import Normalise
from backbones.param_groups import ParamGroup, head_groups, param_groups
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from classification.config import ClassificationConfig
from classification.data import (
    LabelledImages,
    Sample,
    check_classes,
    eval_transform,
    open_split,
    same_classes,
    shared_note,
    some,
    train_transform,
)
from classification.heads import Classifier
from classification.pictures import draw_predictions, draw_reliability
from classification.probe.while_training import FeatureProbe, with_probe
from classification.protocols import freeze_all, freeze_but_last, probe_norm
from classification.spec import CLASSIFICATION
from classification.subset import fraction_of_classes, list_text, listed_images
from engine.augment import augment_of
from engine.channels import channel_notes, normalisation_for
from engine.config import OptimConfig
from engine.cost import cost_of
from engine.images.encoded import batch_of
from engine.records.results_file import ImageResult
from engine.task import Facts
from files.writing import replacing
from metrics import accuracy, calibration

Batch = tuple[Any, Tensor, list[str]]


class ClassificationTask:
    """Fine-tuning, linear probing, partial fine-tuning, or pre-training from labels."""

    primary_metric = CLASSIFICATION.primary.name
    steps_alike = True
    probe: FeatureProbe | None = None

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
        """`pretraining` names the task, and what made the weights that it leaves, `supervised`."""
        self.name = "supervised" if pretraining else CLASSIFICATION.name
        self.pretraining = pretraining
        self.normalisation = normalisation
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.classes = train_data.folder.classes

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Return images (B, C, H, W), or what becomes them on the device, labels (B) and ids."""
        images, labels, ids = zip(*samples, strict=True)
        return batch_of(images, torch.stack), torch.tensor(labels), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Layer-wise decay over what learns of the ViT; the head is the last layer."""
        if self.config.protocol == "linear":
            return head_groups(self.model, weight_decay=optim.weight_decay, depth=self.config.backbone.depth)
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
        """Return top1 and top5 in percent, and the expected calibration error, likewise."""
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        lines = [result.values for result in results]
        return accuracy.scores(lines) | {calibration.ECE.name: calibration.reliability(lines).ece}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write predictions.png, images with label and prediction, and reliability.png, probabilities and how many are
        right."""
        return [
            draw_predictions(folder / "predictions.png", self.val_data, results, self.classes),
            draw_reliability(folder / "reliability.png", [result.values for result in results]),
        ]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors; of a run on a part of the labels train_list.txt too, which --train-list reads."""
        source = self.name if self.pretraining else f"{self.facts.weights.source}+{self.name}"
        vit = self.model.backbone
        written = [leave_backbone(folder, vit, source=source, normalisation=self.normalisation)]
        if self.config.label_fraction is not None or self.config.train_list is not None:
            written.append(folder / "train_list.txt")
            with replacing(written[-1]) as temporary:
                temporary.write_text(list_text(self.train_data.folder.samples, self.train_data.root), encoding="utf-8")
        return written


def build_task(config: ClassificationConfig, *, data: Path, init: InitialWeights | None) -> ClassificationTask:
    """Return training by `config.protocol` on `data/<train_split>`, evaluated on `data/<val_split>`.

    It starts from the backbone checkpoint `init` or from random weights.
    """
    if config.statistics:
        raise ValueError(
            "statistics: pre-training computes them (tools/pretrain.py --statistics), and they travel in its weights; "
            "without weights transfer normalises as ImageNet's."
        )
    return assemble(config, vit_of(config), data=data, init=init)


def assemble(
    config: ClassificationConfig,
    backbone: ViT,
    *,
    data: Path,
    init: InitialWeights | None,
    pretraining: bool = False,
) -> ClassificationTask:
    """Return the task around a backbone, which gets the declared weights or keeps its random ones.

    Raises ValueError for a pre-training under another protocol than `finetune`.
    """
    if pretraining and config.protocol != "finetune":
        raise ValueError(f"protocol {config.protocol!r}: pre-training from labels trains the whole ViT.")
    report, found = start_from(backbone, init)
    channels = config.backbone.in_chans
    normalisation = normalisation_for(config, found, channels)
    freeze(config, backbone)
    train, train_notes = open_split(data, config.train_split, channels)
    val, val_notes = open_split(data, config.val_split, channels)
    train_notes.insert(0, same_classes(train, val))
    val_notes += shared_note(train, val)
    train_notes += _use_part(train, config)
    size = config.backbone.image_size
    model = classifier(config, backbone, num_classes=len(train.classes), normalise=Normalise(normalisation))
    facts = Facts(
        data=str(data),
        train_split=config.train_split,
        val_split=config.val_split,
        train_images=len(train.samples),
        val_images=len(val.samples),
        architecture=asdict(config.backbone),
        weights=report,
        init=init,
        normalisation=asdict(normalisation),
        data_notes=(*channel_notes(config, found, channels), *train_notes, *val_notes),
        **cost_of(backbone, torch.zeros(1, config.backbone.in_chans, *size)),
        extra={"classes": train.classes},
    )
    task = ClassificationTask(
        config,
        model=model,
        train_data=LabelledImages(train, train_transform(size, config.augment, normalisation), augment_of(config.run)),
        val_data=LabelledImages(val, eval_transform(size, config.crop_pct, normalisation)),
        facts=facts,
        normalisation=normalisation,
        pretraining=pretraining,
    )
    return with_probe(task, config, backbone, normalisation)


def classifier(
    config: ClassificationConfig, backbone: ViT, *, num_classes: int, normalise: Normalise | None = None
) -> Classifier:
    """Return the backbone with the head and the mixing of images that the configuration asks for."""
    augment, mixup = config.augment, None
    if augment.mixup or augment.cutmix:
        mixup = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            label_smoothing=augment.label_smoothing,
            num_classes=num_classes,
        )
    return Classifier(
        backbone,
        num_classes=num_classes,
        head_std=config.head_std,
        label_smoothing=augment.label_smoothing,
        mixup=mixup,
        pooling=config.pooling,
        norm=_head_norm(config),
        normalise=normalise,
    )


def vit_of(config: ClassificationConfig) -> ViT:
    """Return the ViT with random weights, what is frozen not yet frozen."""
    # a linear probe reads the final norm of pre-training, and so does a head on the class token
    final_norm = config.protocol == "linear" or config.pooling == "class"
    return ViT(config.backbone, class_token=config.class_token, final_norm=final_norm, drop_path=config.drop_path)


def freeze(config: ClassificationConfig, backbone: ViT) -> None:
    """Let learn of the ViT what the protocol says."""
    if config.protocol == "linear":
        freeze_all(backbone)
    elif config.protocol == "partial":
        freeze_but_last(backbone, config.tuned_blocks)


def _head_norm(config: ClassificationConfig) -> nn.Module | None:
    """Return what stands between pooling and linear layer; None is the default, a fresh layer norm."""
    if config.protocol == "linear":
        return probe_norm(config.backbone.embed_dim)
    return nn.Identity() if config.pooling == "class" else None


def _use_part(train: ImageFolder, config: ClassificationConfig) -> list[str]:
    """Leave in `train` what the configuration chooses of it and return a note of that."""
    root, all_images = Path(train.root), len(train.samples)
    if config.label_fraction is not None:
        kept = fraction_of_classes(train.samples, root, fraction=config.label_fraction, seed=config.label_seed)
        how = f"{100 * config.label_fraction:g} % of each class, seed {config.label_seed}"
    elif config.train_list is not None:
        kept = listed_images(train.samples, root, Path(config.train_list))
        how = f"named by {config.train_list}"
    else:
        return []
    before = {label for _, label in train.samples}
    train.samples = train.imgs = kept
    train.targets = [label for _, label in kept]
    check_classes(train)
    digest = hashlib.sha256(list_text(kept, root).encode()).hexdigest()
    notes = [f"train: {len(kept)} of {all_images} images used ({how}; list sha256 {digest[:12]})"]
    if without := sorted({train.classes[label] for label in before - {*train.targets}}):
        notes.append(f"train: {len(without)} classes without an image in that part ({some(without)})")
    return notes
