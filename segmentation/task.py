"""Segmentation as a Task: UPerNet, a linear head or EoMT on the ViT, mIoU over the validation images.

Follows MAE, appendix A.4 (arXiv 2111.06377), with mmsegmentation's model, losses and transforms.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.param_groups import (
    Exempt,
    ParamGroup,
    exempt_nothing,
    exempt_vectors,
    exempt_vectors_and_embeddings,
    head_groups,
    param_groups,
)
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import normalisation_of, read_initial, start_from
from backbones.weights.loader import LoadReport
from backbones.weights.normalisation import Normalisation
from engine.augment import augment_of
from engine.channels import channel_notes, normalisation_for
from engine.config import OptimConfig
from engine.cost import cost_of
from engine.images.arrays import RGB
from engine.records.results_file import ImageResult
from engine.task import Facts
from engine.training.processes import processes
from metrics.miou import add_up, scores
from segmentation.config import SegmentationConfig, WeightDecayFree
from segmentation.data.classes import palette_of
from segmentation.data.layout import SegmentationFolder, open_folder, with_part
from segmentation.data.mapping import OwnAugment, PairedImages, Sample, collate, train_pipeline, val_pipeline
from segmentation.evaluation.counts import boundary_confusion, boundary_miou, confusion, write_per_class
from segmentation.evaluation.inference import predict_batch
from segmentation.evaluation.pictures import draw_confusion, draw_predictions
from segmentation.host import EncoderDecoder, build_model
from segmentation.model.backbone import MAETransferViT
from segmentation.model.eomt import EoMTViT, eomt
from segmentation.model.linear import linear
from segmentation.model.losses import segmentor_losses
from segmentation.model.upernet import upernet
from segmentation.spec import SEGMENTATION

Batch = dict[str, list[Any]]
NODES = {"upernet": upernet, "linear": linear, "eomt": eomt}  # by HeadConfig.kind
EXEMPT: dict[WeightDecayFree, Exempt] = {
    "vectors_and_embeddings": exempt_vectors_and_embeddings,
    "vectors": exempt_vectors,
    "nothing": exempt_nothing,
}


class SegmentationModel(nn.Module):
    """mmseg's EncoderDecoder behind the loop's interface: a batch in, named losses out."""

    def __init__(self, segmentor: EncoderDecoder, *, scales: tuple[float, ...] = (1.0,), flip: bool = False) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.scales, self.flip = scales, flip
        for head in [segmentor.decode_head, *([segmentor.auxiliary_head] if segmentor.with_auxiliary_head else [])]:
            # float32: a bfloat16 logit has three digits, so the loss is coarse and ties decide the prediction
            if hasattr(head, "conv_seg"):  # EoMT's logits are wide as they come
                head.conv_seg.register_forward_hook(_as_float32)

    @property
    def backbone(self) -> MAETransferViT:
        """The adapter that holds the ViT."""
        return self.segmentor.backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by mmseg's names."""
        data = self.segmentor.data_preprocessor(batch, training=True)
        return segmentor_losses(self.segmentor, data["inputs"], data["data_samples"])

    def predict(self, batch: Batch) -> list[Tensor]:
        """Return the class of every pixel, (H, W) uint8 per image at its own size."""
        return predict_batch(self.segmentor, batch, scales=self.scales, flip=self.flip)


class SegmentationTask:
    """Fine-tuning of the whole ViT, or of a head on its frozen features."""

    name, primary_metric = SEGMENTATION.name, SEGMENTATION.primary.name

    def __init__(
        self,
        config: SegmentationConfig,
        *,
        model: SegmentationModel,
        train_data: PairedImages,
        val_data: PairedImages,
        facts: Facts,
        normalisation: Normalisation,
    ) -> None:
        self.config = config
        self.normalisation = normalisation
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.classes: list[str] = val_data.metainfo["classes"]

    @property
    def steps_alike(self) -> bool:
        """True but for EoMT, whose queries are matched with the objects of an image, and which masks less and less."""
        return self.config.head.kind != "eomt"

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Return mmseg's batch of lists."""
        return collate(samples)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Layer-wise decay over the ViT where it learns; pyramid and heads are the last layer."""
        return segmentor_groups(self.model, self.config, optim)

    def after_step(self, step: int, total: int) -> None:
        """Anneal EoMT's masked attention, as a function of the steps that are done."""
        if isinstance(self.model.backbone, EoMTViT):
            self.model.backbone.anneal(step / total)

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return the confusion counts of every image, as [label, prediction, pixels] with classes from 0."""
        results = []
        for sample, prediction_HW in zip(batch["data_samples"], self.model.predict(batch), strict=True):
            maps = sample.gt_sem_seg.data[0].cpu().numpy(), prediction_HW.cpu().numpy()
            values = {"confusion": confusion(*maps, len(self.classes))}
            if self.config.boundary_iou:
                values["boundary"] = boundary_confusion(*maps, len(self.classes))
            results.append(ImageResult(sample.image_id, values))
        return results

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return miou, macc and aacc in percent, and boundary_miou where it is asked for."""
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        metrics = scores(self._total(results, "confusion"))
        if self.config.boundary_iou:
            metrics["boundary_miou"] = boundary_miou(self._total(results, "boundary"))
        return metrics

    def _total(self, results: Sequence[ImageResult], name: str) -> np.ndarray:
        extra = 1 if name == "boundary" else 0  # one number stands for `not on a boundary`
        return add_up((result.values[name] for result in results), len(self.classes) + extra)

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write predictions.png (images, their labels and the model's prediction) and confusion.png; return both.

        Scores per class go to per_class.csv beside `folder`, before anything is drawn.
        """
        total_CC = self._total(results, "confusion")
        boundary_CC = self._total(results, "boundary") if self.config.boundary_iou else None
        write_per_class(folder.parent / "per_class.csv", total_CC, self.classes, boundary_CC=boundary_CC)
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            path = draw_predictions(folder / "predictions.png", self.val_data, results, self.model.predict)
        self.model.train(training)
        return [path, draw_confusion(folder / "confusion.png", total_CC, self.classes)]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the ViT without neck and heads."""
        source = f"{self.facts.weights.source}+{self.name}"
        return [leave_backbone(folder, self.model.backbone.vit, source=source, normalisation=self.normalisation)]


def build_task(config: SegmentationConfig, *, data: Path, init: InitialWeights | None) -> SegmentationTask:
    """Return the task on the data set in `data`, from the backbone checkpoint `init` or random weights.

    Raises ValueError or FileNotFoundError for data that cannot be trained on, ValueError for a batch that is
    too small for batch norm.
    """
    _check_batch(config)
    channels = config.backbone.in_chans
    folder = with_part(
        open_folder(data, config.layout, train=config.train_split, val=config.val_split, channels=channels), config
    )
    count, augment = len(folder.classes.names), augment_of(config.run)
    weights = read_initial(init)
    found = normalisation_of(init, weights)
    normalisation = normalisation_for(config, found, channels)
    if channels != RGB:
        said = "mmseg's photometric distortion, which is of RGB, is left out"
        notes = (*channel_notes(config, found, channels), said, *folder.notes)
        folder = replace(folder, notes=notes)
    model = segmentation_model(config, num_classes=count, normalisation=normalisation)
    report, _ = start_from(model.backbone.vit, init, weights)
    train = train_pipeline(
        folder.train.label_mapping,
        crop=config.backbone.image_size,
        resize=config.resize,
        resize_ratio=config.resize_ratio,
        cat_max_ratio=config.cat_max_ratio,
        own=None if augment is None else OwnAugment(augment, count),
        channels=channels,
    )
    val = val_pipeline(
        folder.val.label_mapping, resize=config.resize, seen_at=max(config.test_scales), channels=channels
    )
    return SegmentationTask(
        config,
        model=model,
        train_data=PairedImages(folder.train.pairs, folder.classes, train),
        val_data=PairedImages(folder.val.pairs, folder.classes, val),
        facts=replace(_facts(config, folder, model, report, init), normalisation=asdict(normalisation)),
        normalisation=normalisation,
    )


def segmentation_model(
    config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation, initialise: bool = True
) -> SegmentationModel:
    """Return the segmentor with random weights; `initialise` as in `build_model`."""
    nodes = NODES[config.head.kind](config, num_classes=num_classes, normalisation=normalisation)
    return SegmentationModel(
        build_model(nodes, initialise=initialise), scales=config.test_scales, flip=config.test_flip
    )


def segmentor_groups(model: nn.Module, config: SegmentationConfig, optim: OptimConfig) -> list[ParamGroup]:
    """Return layer-wise decay over the ViT, neck and heads being the last layer; the head alone on a frozen ViT."""
    exempt, depth = EXEMPT[config.no_weight_decay], config.backbone.depth
    if config.freeze_backbone:
        return head_groups(model, weight_decay=optim.weight_decay, depth=depth, exempt=exempt)
    return param_groups(
        model,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay,
        depth=depth,
        prefix="segmentor.backbone.vit.",
        exempt=exempt,
    )


def _facts(
    config: SegmentationConfig,
    folder: SegmentationFolder,
    model: SegmentationModel,
    report: LoadReport,
    init: InitialWeights | None,
) -> Facts:
    image = torch.zeros(1, config.backbone.in_chans, *config.backbone.image_size)
    return Facts(
        data=str(folder.root),
        train_split=folder.train.name,
        val_split=folder.val.name,
        train_images=len(folder.train.pairs),
        val_images=len(folder.val.pairs),
        architecture=asdict(config.backbone),
        weights=report,
        init=init,
        data_notes=folder.notes,
        **cost_of(model.backbone.vit, image),
        extra={"classes": list(folder.classes.names)},
        labels={
            "palette": palette_of(folder.classes).tolist(),
            "numbers": [folder.val.label_mapping.table.index(number) for number in range(len(folder.classes.names))],
        },
    )


def _check_batch(config: SegmentationConfig) -> None:
    """Raise ValueError where a forward pass sees one image: batch norm over a 1 x 1 map needs two."""
    run = config.run
    share = run.batch_size // (run.accumulate * processes())
    if share < 2 and config.head.kind == "upernet" and processes() == 1:
        raise ValueError(
            f"batch_size {run.batch_size} over {processes()} process(es) and {run.accumulate} micro-batches "
            f"leaves {share} image(s) per forward pass; UPerNet's batch norm needs 2 or more. Raise the "
            "batch or accumulate less."
        )


def _as_float32(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
