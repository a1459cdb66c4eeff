"""Detection as the training loop sees it: a Mask R-CNN, COCO data, COCO metrics.

Masks are trained and scored where both annotation files have segmentations, boxes alone otherwise. A run that is opened
again keeps what it was trained with.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from backbones.param_groups import (
    Exempt,
    ParamGroup,
    exempt_block_norms_and_position,
    exempt_nothing,
    exempt_vectors_and_embeddings,
    head_groups,
    param_groups,
)
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from detection.config import DetectionConfig, Exemption
from detection.data.coco import CocoSplit, annotation_file, check_same_categories, images_of_both, read_coco, with_note
from detection.data.mapping import Repeats, train_data, val_data
from detection.data.repeat import images_of_classes
from detection.evaluation.draw import draw_pair
from detection.evaluation.precision_recall import draw_precision
from detection.evaluation.results import (
    DETECTIONS_NAME,
    PER_CLASS_NAME,
    Truth,
    coco_detections,
    write_detections,
    write_per_class,
)
from detection.model.backbone import pyramid_on
from detection.model.detector import Detector
from detection.model.mask_rcnn import mask_rcnn
from detection.model.test_time import Inference
from detection.spec import DETECTION
from engine.augment import augment_of
from engine.config import OptimConfig
from engine.cost import cost_of
from engine.records.results_file import ImageResult
from engine.task import Facts, ImageData
from engine.training.seeding import derive
from files.naming import distinct_stems

PICTURES = 6
PRECISION_NAME = "precision.png"
EXEMPT: dict[Exemption, Exempt] = {
    "vectors_and_embeddings": exempt_vectors_and_embeddings,
    "block_norms_and_position": exempt_block_norms_and_position,
    "nothing": exempt_nothing,
}


class DetectionTask:
    """Box and mask AP of one backbone on one COCO-format data set."""

    name, primary_metric = DETECTION.name, DETECTION.primary.name

    def __init__(
        self,
        config: DetectionConfig,
        *,
        train: CocoSplit,
        val: CocoSplit,
        data: Path,
        init: InitialWeights | None,
        masks: bool | None = None,
    ) -> None:
        """Build the model with random heads, and the ViT's weights from `init` or at random.

        `masks` as in `build_task`.
        """
        self.config = config
        self.val = val
        self.masks = train.masks and val.masks if masks is None else masks
        self.truth = Truth(val, masks=self.masks)
        side = config.image_size
        trained, unused = train_data(
            train,
            image_size=side,
            scale_jitter=config.scale_jitter,
            flip=config.flip,
            masks=self.masks,
            empty_images=config.empty_images,
            part=config,
            augment=augment_of(config.run),
            # not of the run's seed, as with `label_seed`: a pass is the same images, as many, for runs of several seeds
            repeats=Repeats(threshold=config.repeat_threshold, seed=derive(0, "repeat"))
            if config.repeat_threshold
            else None,
        )
        vit = vit_of(config)
        report, normalisation = start_from(vit, init)
        self._vit, self._normalisation = vit, normalisation
        self.model: nn.Module = detector(
            config,
            vit,
            num_classes=len(val.categories),
            masks=self.masks,
            normalisation=normalisation,
            class_images=images_of_classes(trained.records.image_classes, classes=len(val.categories)).tolist(),
        )
        self._infer = Inference(self.model, config)
        self.train_data: ImageData = trained
        self.val_data: ImageData = val_data(val, image_size=self._infer.image_size)
        self.facts = Facts(
            data=str(data),
            train_split=config.train_split,
            val_split=config.val_split,
            train_images=len(self.train_data),
            val_images=len(self.val_data),
            architecture=asdict(vit.architecture),
            weights=report,
            init=init,
            normalisation=asdict(normalisation),
            data_notes=(*train.notes, *unused, *val.notes, *_mask_note(train, val, masks)),
            **cost_of(vit, torch.zeros(1, config.backbone.in_chans, side, side)),
            extra={"categories": [[c.id, c.name] for c in val.categories], "masks": self.masks},
        )

    @staticmethod
    def collate(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the samples as a list: detectron2's models pad and batch by themselves."""
        return list(samples)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Return groups by layer of the ViT, the heads in the last."""
        model: Any = self.model
        exempt = EXEMPT[self.config.no_weight_decay]
        if self.config.freeze_backbone:
            depth = self.config.backbone.depth
            return head_groups(self.model, weight_decay=optim.weight_decay, depth=depth, exempt=exempt)
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix=f"backbone.{model.backbone.vit_name}.",
            exempt=exempt,
        )

    def predict(self, batch: list[dict[str, Any]]) -> list[ImageResult]:
        """Return detections in COCO's results form and original pixels, best first, and what they matched.

        `box_matches` and `mask_matches` are what metrics.coco_ap computes AP from.
        """
        outputs = self._infer(batch)
        results = []
        for sample, output in zip(batch, outputs, strict=True):
            found = coco_detections(output["instances"], self.val.categories, masks=self.masks)
            matches = self.truth.matches(sample["image_id"], found)
            values = {"coco_image_id": sample["image_id"], "detections": found, **matches}
            results.append(ImageResult(sample["name"], values))
        return results

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return COCO's 12 numbers as box_ap, box_ap50, ..., with masks mask_ap, ... too; LVIS's with box_ap_rare, ...

        Objects of images without a result are missed.
        """
        scores = self.truth.scores(results)
        return {f"{kind}_{name}": value for kind, one in scores.items() for name, value in one.summary.items()}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write pictures of evenly spaced validation images and of precision over recall; return their paths.

        Beside `folder` go AP per class and the detections as a COCO results file, before anything is drawn.
        """
        scores = self.truth.scores(results)
        write_per_class(folder.parent / PER_CLASS_NAME, scores)
        write_detections(folder.parent / DETECTIONS_NAME, results)
        names = {category.id: category.name for category in self.val.categories}
        annotations = [self.truth.annotations(result.values["coco_image_id"]) for result in results]
        annotated = [number for number, found in enumerate(annotations) if found]
        chosen = np.linspace(0, len(annotated) - 1, min(PICTURES, len(annotated))).astype(int)
        numbers = [annotated[place] for place in chosen]
        ids = [results[number].image_id for number in numbers]
        wanted = [Path(image_id).with_suffix("").as_posix().replace("/", "_") for image_id in ids]
        curves = PRECISION_NAME.removesuffix(".png")
        stems = distinct_stems([curves, *wanted], [curves, *ids])[1:]
        paths = []
        for number, stem in zip(numbers, stems, strict=True):
            result = results[number]
            path = folder / f"{stem}.png"
            draw_pair(
                path,
                str(self.val.folder / result.image_id),
                truth=annotations[number],
                found=result.values["detections"],
                names=names,
            )
            paths.append(path)
        return [*paths, draw_precision(folder / PRECISION_NAME, scores)]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the ViT without pyramid and heads."""
        source = f"{self.facts.weights.source}+{self.name}"
        return [leave_backbone(folder, self._vit, source=source, normalisation=self._normalisation)]


def build_task(
    config: DetectionConfig, *, data: Path, init: InitialWeights | None, masks: bool | None = None
) -> DetectionTask:
    """Return the task on the data that `config` names, read and checked.

    `masks` is whether a finished run was trained with masks; None finds it out from the annotations. Raises ValueError
    where they lack the masks that it says.
    """
    train = read_coco(annotation_file(data, config.train_split, config.train_json), data=data, split=config.train_split)
    val = read_coco(annotation_file(data, config.val_split, config.val_json), data=data, split=config.val_split)
    if train.annotations == val.annotations:
        val = with_note(val, "training and validation use the same annotations")
    else:
        for note in images_of_both(train, val):
            val = with_note(val, f"{val.name}: {note}")
    check_same_categories(train, val)
    for split in (train, val):
        if masks and not split.masks:
            raise ValueError(
                f"{split.annotations}: has no `segmentation`, and the run was trained with masks, which are scored; "
                "give a split whose annotations have them."
            )
    return DetectionTask(config, train=train, val=val, data=data, init=init, masks=masks)


def vit_of(config: DetectionConfig) -> ViT:
    """Return the ViT with random weights."""
    vit = ViT(config.architecture, class_token=False, final_norm=False, drop_path=config.drop_path)
    return vit.requires_grad_(not config.freeze_backbone)  # without stochastic depth its modes are the same


def detector(
    config: DetectionConfig,
    vit: ViT,
    *,
    num_classes: int,
    masks: bool,
    normalisation: Normalisation,
    class_images: Sequence[int],
) -> Detector:
    """Return the ViT with pyramid and random heads; `class_images` as in `mask_rcnn`."""
    heads = config.heads
    return mask_rcnn(
        pyramid_on(vit, config.pyramid, out_channels=heads.channels, square_pad=config.image_size, norm=heads.norm),
        heads=heads,
        num_classes=num_classes,
        masks=masks,
        normalisation=normalisation,
        class_images=class_images,
    )


def _mask_note(train: CocoSplit, val: CocoSplit, stated: bool | None) -> tuple[str, ...]:
    if stated is not None:
        return () if stated else ("boxes alone are scored, as the run was trained",)
    without = [str(split.annotations) for split in (train, val) if not split.masks]
    if not without:
        return ()
    return (f"no segmentation in {' and '.join(without)}: boxes alone are trained and scored, without a mask head",)
