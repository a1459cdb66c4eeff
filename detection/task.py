"""Detection as the training loop sees it: a Mask R-CNN, COCO data, COCO metrics.

Masks are trained and scored where both annotation files have segmentations, boxes alone otherwise.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import torch
from detectron2.structures import BoxMode, Instances
from torch import nn

from backbones.checkpoint import Normalisation, load_checkpoint, read_checkpoint
from backbones.param_groups import ParamGroup, param_groups
from backbones.vit import ViT
from detection.backbone import ViTPyramid
from detection.coco import CocoSplit, annotation_file, check_same_categories, read_coco
from detection.config import DetectionConfig
from detection.configs.mask_rcnn import mask_rcnn
from detection.data import train_data, val_data
from detection.draw import draw_pair
from detection.score import coco_metrics
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.task import Facts, ImageData, ImageResult

PICTURES = 6


class DetectionTask:
    """Box and mask AP of one backbone on one COCO-format data set."""

    name = "detection"
    primary_metric = "box_ap"

    def __init__(
        self, config: DetectionConfig, *, train: CocoSplit, val: CocoSplit, data: Path, init: Path | None
    ) -> None:
        """Build the model with random heads, and the ViT's weights from `init` or at random."""
        self.config = config
        self.val = val
        self.masks = train.masks and val.masks
        side = config.image_size
        vit = ViT(config.backbone.at(side, side), class_token=False, final_norm=False, drop_path=config.drop_path)
        checkpoint = read_checkpoint(init) if init else None
        report = load_checkpoint(vit, checkpoint) if checkpoint else None
        self.model: nn.Module = mask_rcnn(
            ViTPyramid(vit, out_channels=config.heads.channels, square_pad=side),
            heads=config.heads,
            num_classes=len(val.categories),
            masks=self.masks,
            normalisation=checkpoint.normalisation if checkpoint else Normalisation(),
        )
        self.train_data: ImageData
        self.val_data: ImageData
        self.train_data, unused = train_data(
            train, image_size=side, scale_jitter=config.scale_jitter, flip=config.flip, masks=self.masks
        )
        self.val_data = val_data(val, image_size=side)
        self.facts = Facts(
            data=str(data),
            train_split=config.train_split,
            val_split=config.val_split,
            train_images=len(self.train_data),
            val_images=len(self.val_data),
            architecture=asdict(vit.architecture),
            weights_source=checkpoint.source if checkpoint else "random",
            weights_path=str(checkpoint.path) if checkpoint else None,
            weights_sha256=checkpoint.sha256 if checkpoint else None,
            weights_report=tuple(report.lines()) if report else (),
            data_notes=(*train.notes, *unused, *val.notes, *_mask_note(train, val)),
            flops_per_image=count_flops(vit, torch.zeros(1, config.backbone.in_chans, side, side)),
            extra={"categories": [[c.id, c.name] for c in val.categories], "masks": self.masks},
        )

    def collate(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the samples as a list: detectron2's models pad and batch by themselves."""
        return list(samples)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Return groups by layer of the ViT, the heads in the last."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="backbone.vit.",
        )

    def predict(self, batch: list[dict[str, Any]]) -> list[ImageResult]:
        """Return detections in COCO's results form and original pixels, best first."""
        outputs = self.model(batch)
        return [
            ImageResult(
                sample["name"],
                {"coco_image_id": sample["image_id"], "detections": self._detections(output["instances"])},
            )
            for sample, output in zip(batch, outputs, strict=True)
        ]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return box_ap, box_ap50, ... and, with masks, mask_ap, ...; images without a result are missed."""
        detections = [
            {"image_id": result.values["coco_image_id"], **detection}
            for result in results
            for detection in result.values["detections"]
        ]
        box = coco_metrics(self.val.ground_truth, detections, kind="bbox")
        metrics = {f"box_{name}": value for name, value in box.items()}
        if self.masks:
            mask = coco_metrics(self.val.ground_truth, detections, kind="segm")
            metrics |= {f"mask_{name}": value for name, value in mask.items()}
        return metrics

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write pictures of evenly spaced validation images and return their paths."""
        names = {category.id: category.name for category in self.val.categories}
        truth: dict[Any, list[dict[str, Any]]] = {}
        for annotation in self.val.ground_truth["annotations"]:
            shown = annotation if self.masks else {k: v for k, v in annotation.items() if k != "segmentation"}
            truth.setdefault(annotation["image_id"], []).append(shown)
        annotated = [result for result in results if result.values["coco_image_id"] in truth]
        chosen = np.linspace(0, len(annotated) - 1, min(PICTURES, len(annotated))).astype(int)
        files = {record["image_id"]: record["file_name"] for record in self.val.records}
        paths = []
        for number in chosen:
            result = annotated[number]
            path = folder / f"{Path(result.image_id).with_suffix('').as_posix().replace('/', '_')}.png"
            values = result.values
            draw_pair(
                path,
                files[values["coco_image_id"]],
                truth=truth[values["coco_image_id"]],
                found=values["detections"],
                names=names,
            )
            paths.append(path)
        return paths

    def finish(self, folder: Path) -> list[Path]:
        """Leave nothing besides the record."""
        return []

    def _detections(self, instances: Instances) -> list[dict[str, Any]]:
        instances = instances.to("cpu")
        boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
        detections: list[dict[str, Any]] = [
            {"category_id": self.val.categories[number].id, "bbox": box, "score": score}
            for number, box, score in zip(
                instances.pred_classes.tolist(), boxes, instances.scores.tolist(), strict=True
            )
        ]
        if self.masks:
            for detection, mask_HW in zip(detections, instances.pred_masks.numpy(), strict=True):
                packed = rle.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
                detection["segmentation"] = {
                    "size": list(packed["size"]),
                    "counts": packed["counts"].decode("ascii"),
                }
        return detections


def build_task(config: DetectionConfig, *, data: Path, init: Path | None) -> DetectionTask:
    """Return the task on the data that `config` names, read and checked."""
    train = read_coco(annotation_file(data, config.train_split, config.train_json), data=data, split=config.train_split)
    val = read_coco(annotation_file(data, config.val_split, config.val_json), data=data, split=config.val_split)
    if train.annotations == val.annotations:
        val = replace(val, notes=(*val.notes, "training and validation use the same annotations"))
    check_same_categories(train, val)
    return DetectionTask(config, train=train, val=val, data=data, init=init)


def _mask_note(train: CocoSplit, val: CocoSplit) -> tuple[str, ...]:
    without = [str(split.annotations) for split in (train, val) if not split.masks]
    if not without:
        return ()
    return (f"no segmentation in {' and '.join(without)}: boxes alone are trained and scored, without a mask head",)
