"""BEiT pre-training as a Task."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.normalise import Normalise
from backbones.param_groups import ParamGroup, exempt_vectors_and_embeddings, param_groups
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from classification.probe.while_training import FeatureProbe, with_probe
from engine.augment import augment_of
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.images.reading import evenly_spaced
from engine.records.results_file import ImageResult
from engine.task import Facts
from engine.training.seeding import derive, seeded
from pretraining.beit.config import BEiTConfig
from pretraining.beit.data import CentreCrop, Images, MaskedViews, RandomCrop
from pretraining.beit.masking import block_mask
from pretraining.beit.model import Batch, MaskedImageModel, initialise_encoder
from pretraining.beit.pictures import draw_tokens
from pretraining.spec import BEIT
from pretraining.splits import open_splits
from pretraining.tokenizer.opening import check_grid, open_tokenizer

Views = tuple[Tensor, Tensor, Tensor]  # image_CHW, pixel_CHW, mask_N
PICTURED = 8  # validation images in the picture


class BEiTTask:
    """Prediction of the tokens of masked patches; ends in a backbone checkpoint of the encoder alone."""

    name, primary_metric = BEIT.name, BEIT.primary.name
    probe: FeatureProbe | None = None

    def __init__(
        self,
        config: BEiTConfig,
        *,
        model: MaskedImageModel,
        train_data: Images[Views],
        val_data: Images[Views],
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
    def collate(samples: Sequence[tuple[Views, str]]) -> Batch:
        """Return images and pixels (B, C, H, W), masks (B, N) and ids."""
        views, ids = zip(*samples, strict=True)
        images, pixels, masks = zip(*views, strict=True)
        return torch.stack(images), torch.stack(pixels), torch.stack(masks), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Weight decay on all but biases, norms, layer scale, class token and positions, as in BEiT's code."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="encoder.",
            exempt=exempt_vectors_and_embeddings,
        )

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return each image's cross-entropy, share of right tokens and true tokens under its own fixed mask."""
        image_BCHW, pixel_BCHW, mask_BN, ids = batch
        made = self.model.predict(image_BCHW, pixel_BCHW, mask_BN)
        losses, hits = made.loss_BM.mean(dim=1).tolist(), made.hit_BM.float().mean(dim=1).tolist()
        each = zip(ids, losses, hits, made.target_BM.tolist(), strict=True)
        return [ImageResult(i, {"loss": loss, "right": hit, "tokens": tokens}) for i, loss, hit, tokens in each]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return val_loss in nats and token_accuracy in percent, over the masked patches of all images.

        constant_accuracy is what always saying the most frequent of their tokens would reach: a tokenizer that uses
        few tokens is easy to predict.
        """
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        count = len(results)  # every image has as many masked patches
        tokens = Counter(token for result in results for token in result.values["tokens"])
        return {
            "val_loss": sum(r.values["loss"] for r in results) / count,
            "token_accuracy": 100 * sum(r.values["right"] for r in results) / count,
            "constant_accuracy": 100 * max(tokens.values()) / sum(tokens.values()),
        }

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write tokens.png of evenly spaced validation images."""
        readable = {result.image_id for result in results}
        indices = [i for i in range(len(self.val_data)) if self.val_data.image_id(i) in readable]
        chosen = evenly_spaced(indices, PICTURED)
        samples = []
        for index in chosen:
            with seeded(derive(self.config.run.seed, "evaluate", index)):  # the mask that it was evaluated with
                samples.append(self.val_data[index])
        device = self.model.mask_token.device
        image_BCHW, pixel_BCHW, mask_BN = (part.to(device) for part in self.collate(samples)[:3])
        pixel_BCHW = self.model.scale(pixel_BCHW)
        self.model.eval()
        return [draw_tokens(folder / "tokens.png", self.model, image_BCHW, pixel_BCHW, mask_BN)]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the encoder."""
        return [leave_backbone(folder, self.model.encoder, source="beit", normalisation=self.normalisation)]


def build_task(
    config: BEiTConfig, *, data: Path, init: InitialWeights | None, trust_tokenizer: bool = False
) -> BEiTTask:
    """Return BEiT on the images below `data/train`, from random weights or an encoder checkpoint.

    `trust_tokenizer` is the command line's word that the tokenizer's pickles may run; that of the configuration is not
    asked. Raises ValueError or FileNotFoundError where the tokenizer is absent, unreadable, or of another grid.
    """
    a = config.backbone
    encoder = ViT(a, drop_path=config.drop_path)
    initialise_encoder(encoder)
    report, found = start_from(encoder, init)
    normalisation = config.normalisation or found
    tokenizer = open_tokenizer(config.tokenizer, config.tokenizer_kind, trust_pickle=trust_tokenizer)
    check_grid(tokenizer, token_size=config.token_size, grid=a.grid)
    views: dict[str, Any] = {
        "image_size": a.image_size,
        "token_size": config.token_size,
        "mask": partial(_mask, config),
    }
    random_crop = RandomCrop(scale=config.crop_scale, flip=config.flip, jitter=config.color_jitter)
    splits = open_splits(data, config)
    train_views = MaskedViews(random_crop, **views)
    train_data = Images(splits.train, train_views, train_views.changed, augment_of(config.run))
    val_data = Images(splits.val, MaskedViews(CentreCrop(a.image_size), **views))
    model = MaskedImageModel(encoder, tokenizer, normalise=Normalise(normalisation, scaled=True))
    pixel = torch.zeros(1, 3, *config.token_size)
    mask = torch.arange(a.grid[0] * a.grid[1])[None] < config.masked_patches
    frozen = count_flops(tokenizer.tokens, pixel)
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
        flops_per_image=count_flops(model, (torch.zeros(1, a.in_chans, *a.image_size), pixel, mask, [])) - frozen,
        frozen_flops_per_image=frozen,
        extra={
            "tokenizer": {
                "kind": config.tokenizer_kind,
                "vocabulary": tokenizer.vocabulary,
                "downsampling": tokenizer.downsampling,
                "sha256": tokenizer.sha256,
            }
        },
    )
    task = BEiTTask(
        config,
        model=model,
        train_data=train_data,
        val_data=val_data,
        facts=facts,
        normalisation=normalisation,
    )
    return with_probe(task, config, encoder, normalisation)


def _mask(config: BEiTConfig, generator: random.Random) -> Tensor:
    return block_mask(
        config.backbone.grid,
        masked=config.masked_patches,
        smallest=config.min_block,
        least_aspect=config.min_aspect,
        generator=generator,
    )
