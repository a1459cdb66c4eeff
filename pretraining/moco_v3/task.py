"""MoCo v3 pre-training as a Task."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from backbones.normalise import Normalise
from backbones.param_groups import ParamGroup, exempt_nothing, param_groups
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from classification.probe.while_training import FeatureProbe, with_probe
from engine.augment import augment_of
from engine.collapse import effective_rank, feature_spread
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.images.reading import evenly_spaced
from engine.records.results_file import ImageResult
from engine.task import Facts
from pretraining.augment import validation_view
from pretraining.feature_pictures import class_features, draw_neighbours
from pretraining.moco_v3.config import MoCoConfig
from pretraining.moco_v3.model import Batch, MoCoV3, initialise_encoder, momentum_at
from pretraining.moco_v3.views import Sample, TwoViews, views
from pretraining.spec import MOCO_V3
from pretraining.splits import open_splits

PICTURED = 6  # images whose neighbours are drawn
SEARCHED = 256  # validation images among which they are looked for


class MoCoTask:
    """Contrast of two views; ends in a backbone checkpoint of the trained (not the momentum) encoder."""

    name, primary_metric = MOCO_V3.name, MOCO_V3.primary.name
    probe: FeatureProbe | None = None

    def __init__(
        self,
        config: MoCoConfig,
        *,
        model: MoCoV3,
        train_data: TwoViews,
        val_data: TwoViews,
        facts: Facts,
        normalisation: Normalisation,
    ) -> None:
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.normalisation = normalisation

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Return first views and second views (B, C, H, W) and ids."""
        first, second, ids = zip(*samples, strict=True)
        return torch.stack(first), torch.stack(second), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Weight decay on everything, norms and biases too, as in MoCo v3's code."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="base.encoder.",
            exempt=exempt_nothing,
        )

    def watch(self, due: bool) -> None:
        """Have the rank of the features computed where it is logged."""
        self.model.watched = due

    def after_step(self, step: int, total: int) -> None:
        """Let the momentum encoder follow; its share is that of the step to come."""
        self.model.follow(momentum_at(step, total=total, first=self.config.momentum))

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return the loss of each image among those of its batch, and how far the batch's class tokens differ."""
        first, second, ids = batch
        made = self.model.compare(first, second, everywhere=False)
        batch_wide = {
            "batch": len(ids),
            "spread": float(feature_spread(made.class_BD)),
            "rank": float(effective_rank(made.class_BD)),
        }
        losses = made.loss_B.tolist()
        return [ImageResult(i, {"loss": loss, **batch_wide}) for i, loss in zip(ids, losses, strict=True)]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return val_loss, and feature_spread and feature_rank, which fall to 0 and 1 where features collapse.

        Each is of the images of an evaluation batch (run.eval_batch_size), averaged. A smaller last one is left out:
        in it an image has fewer others to be told from. So eval_batch_size is a part of the run's identity.
        """
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        whole = max(r.values["batch"] for r in results)
        counted = [r for r in results if r.values["batch"] == whole]
        names = {"val_loss": "loss", "feature_spread": "spread", "feature_rank": "rank"}
        return {name: sum(r.values[value] for r in counted) / len(counted) for name, value in names.items()}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write neighbours.png: validation images and those whose class tokens are the nearest."""
        readable = {result.image_id for result in results}
        indices = [i for i in range(len(self.val_data)) if self.val_data.image_id(i) in readable]
        images = torch.stack([self.val_data.view_of(i) for i in evenly_spaced(indices, SEARCHED)])
        self.model.eval()
        feature_BD = class_features(self.model.base.encoder, images)
        return [draw_neighbours(folder / "neighbours.png", images, feature_BD, self.normalisation, queries=PICTURED)]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the trained encoder."""
        return [leave_backbone(folder, self.model.base.encoder, source="moco_v3", normalisation=self.normalisation)]


def build_task(config: MoCoConfig, *, data: Path, init: InitialWeights | None) -> MoCoTask:
    """Return MoCo v3 on the images below `data/train`, from random weights or an encoder checkpoint."""
    a = config.backbone
    encoder = ViT(a, train_position=a.position == "learned")
    initialise_encoder(encoder)
    report, found = start_from(encoder, init)
    normalisation = config.normalisation or found
    centre = validation_view(a.image_size, normalisation)
    first, second = views(
        a.image_size, normalisation, changes=config.changes, scale=config.crop_scale, blur=config.blur
    )
    splits = open_splits(data, config)
    train_data = TwoViews(splits.train, first, second, centre, augment_of(config.run))
    val_data = TwoViews(splits.val, first, second, centre)
    model = MoCoV3(
        encoder,
        hidden=config.hidden,
        width=config.width,
        temperature=config.temperature,
        freeze_patches=config.freeze_patches,
        normalise=Normalise(normalisation, scaled=True),
    )
    image: Tensor = torch.zeros(1, a.in_chans, *a.image_size)
    frozen = 2 * count_flops(model.momentum, image)
    facts = Facts(
        data=str(data),
        train_split=splits.train_split,
        val_split=splits.val_split,
        train_images=len(train_data),
        val_images=len(val_data),
        architecture=asdict(a),
        weights=report,
        init=init,
        normalisation=asdict(normalisation),
        data_notes=splits.notes,
        counted=("eval_batch_size",),
        flops_per_image=count_flops(model, (image, image, [])) - frozen,
        frozen_flops_per_image=frozen,
    )
    task = MoCoTask(
        config, model=model, train_data=train_data, val_data=val_data, facts=facts, normalisation=normalisation
    )
    return with_probe(task, config, encoder, normalisation)
