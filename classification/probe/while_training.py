"""How features do while a ViT trains: probes of frozen features on a small labelled folder, at every evaluation.

Features are the mean of the patch tokens behind the last block, through the ViT's final norm where it has one. The
model that trains is put into eval mode and back, and no random number of the run is drawn, so a run's weights are the
same with and without. Axis letters: N images, D width.
"""

import copy
import math
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torchvision.datasets import ImageFolder

from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from classification.data import LabelledImages, collate, eval_transform, open_split, same_classes, shared_note
from classification.heads import pool
from classification.probe.knn import nearest_classes
from classification.probe.linear_sweep import sweep
from classification.subset import fraction_of_classes
from engine.collapse import effective_rank, feature_spread
from engine.config import FeatureProbes, RunConfig
from engine.cost import count_flops
from engine.images.reading import none_readable
from engine.task import Facts
from engine.training.ahead import on_device
from engine.training.data import eval_batches, loading_for
from engine.training.seeding import seeded
from metrics.probed import KNN, LINEAR, RANK, SPREAD, UNREADABLE

NEIGHBOURS = 20
LINEAR_EPOCHS = 30
CROP = 224 / 256  # as probe.py crops
SHARE = 0.03  # of a run's products that evaluations with probes may take where nothing says how often they are made
MOST = 20  # such evaluations


class ProbedTask(Protocol):
    """A task whose features can be probed."""

    facts: Facts
    probe: "FeatureProbe | None"


T = TypeVar("T", bound=ProbedTask)


@dataclass(frozen=True, kw_only=True)
class FeatureProbe:
    """The labelled images, and the ViT that learns."""

    vit: ViT
    train: LabelledImages
    val: LabelledImages
    run: RunConfig
    cost: float
    """Of an evaluation with the probe, in training steps, by their products."""
    notes: tuple[str, ...]

    def every(self, total: int) -> int:
        """Return after how many steps an evaluation is due in a run of `total`, where nothing else says it."""
        return min(total, max(math.ceil(total / MOST), math.ceil(self.cost / SHARE)))

    def __call__(self, fabric: Fabric) -> dict[str, float]:
        """Return top-1 in percent of k nearest neighbours and of a linear classifier, and rank and spread of features.

        `probe_knn` has 20 neighbours, `probe_linear` the learning rate that a tenth of the training images chooses;
        `probe_rank` is the effective rank and `probe_spread` the spread of the validation images' features
        (engine.collapse). `probe_unreadable` counts images that could not be read, where there are any. Raises
        ValueError where no image of a split can be read.
        """
        training = self.vit.training
        self.vit.eval()
        try:
            (train_ND, label_N), (val_VD, label_V) = (self._features(data, fabric) for data in (self.train, self.val))
        finally:
            self.vit.train(training)
        classes = len(self.train.folder.classes)
        near_VK = nearest_classes(train_ND, label_N, val_VD, classes=classes, neighbours=(NEIGHBOURS,))[NEIGHBOURS]
        found = sweep(train_ND, label_N, val_VD, label_V, classes=classes, epochs=LINEAR_EPOCHS)
        unreadable = len(self.train) + len(self.val) - len(label_N) - len(label_V)
        return {
            KNN.name: 100 * float((near_VK[:, 0] == label_V).double().mean()),
            LINEAR.name: found.top1[found.chosen],
            RANK.name: float(effective_rank(val_VD)),
            SPREAD.name: float(feature_spread(val_VD)),
            **({UNREADABLE.name: unreadable} if unreadable else {}),
        }

    def _features(self, data: LabelledImages, fabric: Fabric) -> tuple[Tensor, Tensor]:
        """Return features (N, D) in float32 and labels (N) of a split, on the device."""
        normalise = copy.deepcopy(data.view.normalise).to(fabric.device)
        loading = loading_for(self.run.workers, fabric.device)
        loaded = eval_batches(data, collate, batch_size=self.run.eval_batch_size, loading=loading)
        features, labels = [], []
        with seeded(0), closing(on_device(loaded, fabric)) as batches, torch.no_grad(), fabric.autocast():
            for batch in batches:
                if batch.data is None:
                    continue
                pixels_BCHW, label_B = batch.data
                tokens_BTD = self.vit(normalise(pixels_BCHW))
                features.append(pool(tokens_BTD, self.vit.num_prefix_tokens, "mean").float())
                labels.append(label_B)
        if not features:
            raise ValueError(f"{data.root}: none of its images can be read any more, and features are probed on them.")
        return torch.cat(features), torch.cat(labels)


def with_probe(task: T, config: Any, vit: ViT, normalisation: Normalisation) -> T:
    """Return the task with the probe that its configuration asks for, its cost stated among the notes on the data.

    Raises ValueError and FileNotFoundError as `open_split`, and ValueError where no image of a split can be read.
    """
    asked: FeatureProbes = config
    if asked.probe_data is None:
        return task
    if asked.probe_images < 1:
        raise ValueError(f"probe_images is {asked.probe_images}; it must be at least 1.")
    run: RunConfig = config.run
    data, a = Path(asked.probe_data), vit.architecture
    (train, train_notes), (val, val_notes) = (open_split(data, split, a.in_chans) for split in ("train", "val"))
    notes = [same_classes(train, val), *train_notes, *val_notes, *shared_note(train, val)]
    for folder in (train, val):
        paths = [path for path, _ in folder.samples]
        if (nothing := none_readable(paths, Path(folder.root).name, a.in_chans)) is not None:
            raise ValueError(f"{data}: {nothing}")
        _take(folder, asked.probe_images)
    view = eval_transform(a.image_size, CROP, normalisation)
    images, facts = len(train.samples) + len(val.samples), task.facts
    was = vit.training
    forward = count_flops(vit, torch.zeros(1, a.in_chans, *a.image_size))
    vit.train(was)
    whole = facts.flops_per_image or forward
    cost = (images * forward + facts.val_images * whole) / (3 * whole * run.batch_size * facts.views_per_image)
    said = (
        f"{data}: features are probed at every evaluation on {len(train.samples)} + {len(val.samples)} images "
        f"({len(train.classes)} classes); an evaluation has the products of {cost:.3g} training steps"
    )
    task.probe = FeatureProbe(
        vit=vit,
        train=LabelledImages(train, view),
        val=LabelledImages(val, view),
        run=run,
        cost=cost,
        notes=(said, *(f"{data}: {note}" for note in notes[1:])),
    )
    task.facts = replace(facts, data_notes=(*facts.data_notes, *task.probe.notes))
    return task


def _take(folder: ImageFolder, most: int) -> None:
    """Leave about `most` images of the folder, the same share of every class."""
    if len(folder.samples) > most:
        kept = fraction_of_classes(folder.samples, Path(folder.root), fraction=most / len(folder.samples), seed=0)
        folder.samples = folder.imgs = kept
        folder.targets = [label for _, label in kept]
