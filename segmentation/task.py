"""Segmentation as a Task: UPerNet on the ViT, mIoU over the validation images.

Follows MAE, appendix A.4 (arXiv 2111.06377), with mmsegmentation's model, losses and transforms.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.checkpoint import LoadReport, Normalisation, load_checkpoint, read_checkpoint
from backbones.param_groups import ParamGroup, param_groups
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.task import Facts, ImageResult
from segmentation.backbone import MAETransferViT
from segmentation.config import SegmentationConfig
from segmentation.configs.upernet import processes, synchronised, upernet
from segmentation.data import PairedImages, Sample, collate, train_pipeline, val_pipeline
from segmentation.host import EncoderDecoder, build_model
from segmentation.layout import TRAIN, VAL, SegmentationFolder, open_folder
from segmentation.metrics import add_up, confusion, scores
from segmentation.pictures import draw_predictions

Batch = dict[str, list[Any]]


class SegmentationModel(nn.Module):
    """mmseg's EncoderDecoder behind the loop's interface: a batch in, named losses out."""

    def __init__(self, segmentor: EncoderDecoder) -> None:
        super().__init__()
        self.segmentor = segmentor
        for head in (segmentor.decode_head, segmentor.auxiliary_head):
            # float32: a bfloat16 logit has three digits, so the loss is coarse and ties decide the prediction
            head.conv_seg.register_forward_hook(_as_float32)

    @property
    def backbone(self) -> MAETransferViT:
        """The adapter that holds the ViT."""
        return self.segmentor.backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by mmseg's names; as in mmengine, what has no `loss` in its name is not one."""
        data = self.segmentor.data_preprocessor(batch, training=True)
        values = self.segmentor.loss(data["inputs"], data["data_samples"])
        return {name: value for name, value in values.items() if "loss" in name}

    def predict(self, batch: Batch) -> list[Tensor]:
        """Return the class of every pixel, (H, W) per image at its own size."""
        samples = zip(batch["inputs"], batch["data_samples"], strict=True)
        predictions = []
        # mmseg takes images of one size at a time
        for _, same_size in groupby(samples, key=lambda pair: (pair[0].shape, pair[1].ori_shape)):
            inputs, data_samples = zip(*same_size, strict=True)
            done = self.segmentor.test_step({"inputs": list(inputs), "data_samples": list(data_samples)})
            predictions += [sample.pred_sem_seg.data[0] for sample in done]
        return predictions


class SegmentationTask:
    """Fine-tuning of the whole ViT under UPerNet."""

    name = "segmentation"
    primary_metric = "miou"

    def __init__(
        self,
        config: SegmentationConfig,
        *,
        model: SegmentationModel,
        train_data: PairedImages,
        val_data: PairedImages,
        facts: Facts,
    ) -> None:
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.classes: list[str] = val_data.metainfo["classes"]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return mmseg's batch of lists."""
        return collate(samples)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Layer-wise decay over the ViT; pyramid and heads are the last layer."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="segmentor.backbone.vit.",
        )

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return the confusion counts of every image, as [label, prediction, pixels] with classes from 0."""
        results = []
        for sample, prediction_HW in zip(batch["data_samples"], self.model.predict(batch), strict=True):
            label_HW = sample.gt_sem_seg.data[0].cpu().numpy()
            counts = confusion(label_HW, prediction_HW.cpu().numpy(), len(self.classes))
            results.append(ImageResult(sample.image_id, {"confusion": counts}))
        return results

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return miou, macc and aacc in percent."""
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        return scores(add_up((r.values["confusion"] for r in results), len(self.classes)))

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write predictions.png: images, their labels and the model's answer."""
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            path = draw_predictions(folder / "predictions.png", self.val_data, results, self.model.predict)
        self.model.train(training)
        return [path]

    def finish(self, folder: Path) -> list[Path]:
        """Nothing besides the record."""
        return []


def build_task(config: SegmentationConfig, *, data: Path, init: Path | None) -> SegmentationTask:
    """Return the task on the ADE20K layout in `data`, from the backbone checkpoint `init` or random weights.

    Raises ValueError or FileNotFoundError for data that cannot be trained on, ValueError for a batch that is
    too small for batch norm.
    """
    _check_batch(config)
    folder = open_folder(data)
    count = len(folder.classes.names)
    checkpoint = read_checkpoint(init) if init is not None else None
    normalisation = checkpoint.normalisation if checkpoint else Normalisation()
    segmentor = build_model(upernet(config, num_classes=count, normalisation=normalisation))
    model = SegmentationModel(segmentor)
    report = load_checkpoint(model.backbone.vit, checkpoint) if checkpoint else None
    train = train_pipeline(
        count,
        crop=config.backbone.image_size,
        resize=config.resize,
        resize_ratio=config.resize_ratio,
        cat_max_ratio=config.cat_max_ratio,
    )
    return SegmentationTask(
        config,
        model=model,
        train_data=PairedImages(folder.train, folder.classes, train),
        val_data=PairedImages(folder.val, folder.classes, val_pipeline(count, resize=config.resize)),
        facts=_facts(config, folder, model, report),
    )


def _facts(
    config: SegmentationConfig,
    folder: SegmentationFolder,
    model: SegmentationModel,
    report: LoadReport | None,
) -> Facts:
    image = torch.zeros(1, config.backbone.in_chans, *config.backbone.image_size)
    return Facts(
        data=str(folder.root),
        train_split=TRAIN,
        val_split=VAL,
        train_images=len(folder.train),
        val_images=len(folder.val),
        architecture=asdict(config.backbone),
        weights_source=report.source if report else "random",
        weights_path=report.path if report else None,
        weights_sha256=report.sha256 if report else None,
        weights_report=tuple(report.lines()) if report else (),
        data_notes=folder.notes,
        flops_per_image=count_flops(model.backbone.vit, image),
        extra={"classes": list(folder.classes.names)},
    )


def _check_batch(config: SegmentationConfig) -> None:
    """Raise ValueError where a forward pass sees one image: batch norm over a 1 x 1 map needs two."""
    run = config.run
    share = run.batch_size // (run.accumulate * processes())
    if share < 2 and not synchronised():
        raise ValueError(
            f"batch_size {run.batch_size} over {processes()} process(es) and {run.accumulate} micro-batches "
            f"leaves {share} image(s) per forward pass; UPerNet's batch norm needs 2 or more. Raise the "
            "batch or accumulate less."
        )


def _as_float32(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
