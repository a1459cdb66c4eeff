"""MAE pre-training as a Task."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from backbones.checkpoint import Normalisation, write_checkpoint
from backbones.initial import start_from
from backbones.param_groups import ParamGroup, exempt_vectors, param_groups
from backbones.vit import ViT
from classification.config import Augmentation
from classification.data import eval_transform, train_transform
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.task import Facts, ImageResult, InitialWeights
from pretraining.config import MAEConfig
from pretraining.data import MaskedImages, Sample
from pretraining.mae import MaskedAutoencoder
from pretraining.pictures import draw_reconstructions

Batch = tuple[Tensor, Tensor, list[str]]
PICTURED = 8  # validation images in the reconstruction picture


class MAETask:
    """Reconstruction of masked pixels; ends in a backbone checkpoint of the encoder alone."""

    name = "mae"
    primary_metric = "val_loss"

    def __init__(
        self,
        config: MAEConfig,
        *,
        model: MaskedAutoencoder,
        train_data: MaskedImages,
        val_data: MaskedImages,
        facts: Facts,
        normalisation: Normalisation,
    ) -> None:
        self.config = config
        self.model = model
        self.train_data = train_data
        self.val_data = val_data
        self.facts = facts
        self.normalisation = normalisation

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return images (B, C, H, W), noise (B, N) and ids."""
        images, noise, ids = zip(*samples, strict=True)
        return torch.stack(images), torch.stack(noise), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        """Weight decay on all but biases and norms, as in MAE's pre-training."""
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self.config.backbone.depth,
            prefix="encoder.",
            exempt=exempt_vectors,
        )

    def predict(self, batch: Batch) -> list[ImageResult]:
        """Return the reconstruction loss of each image under its own fixed mask."""
        image_BCHW, noise_BN, ids = batch
        loss_B = self.model.reconstruct(image_BCHW, noise_BN).loss_B
        return [ImageResult(i, {"loss": loss}) for i, loss in zip(ids, loss_B.tolist(), strict=True)]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Return val_loss, the mean over images."""
        if not results:
            raise ValueError(f"{self.facts.data}: no image of split {self.facts.val_split} could be evaluated.")
        return {"val_loss": sum(r.values["loss"] for r in results) / len(results)}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write reconstructions.png of evenly spaced validation images."""
        readable = {result.image_id for result in results}
        indices = [i for i in range(len(self.val_data)) if self.val_data.image_id(i) in readable]
        chosen = [indices[k * len(indices) // PICTURED] for k in range(min(PICTURED, len(indices)))]
        generator = torch.Generator().manual_seed(self.config.run.seed)
        images = torch.stack([self.val_data.transform_image(i) for i in chosen])
        noise = torch.rand(len(chosen), self.val_data.patches, generator=generator)
        device = self.model.mask_token.device
        self.model.eval()
        return [
            draw_reconstructions(
                folder / "reconstructions.png",
                self.model,
                images.to(device),
                noise.to(device),
                self.normalisation,
            )
        ]

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the encoder."""
        path = folder / "backbone.safetensors"
        write_checkpoint(path, self.model.encoder, source="mae", normalisation=self.normalisation)
        return [path]


def build_task(config: MAEConfig, *, data: Path, init: InitialWeights | None) -> MAETask:
    """Return MAE on the images below `data/train`, from random weights or an encoder checkpoint."""
    a = config.backbone
    encoder = ViT(a, train_position=False)
    report, normalisation = start_from(encoder, init)
    model = MaskedAutoencoder(
        encoder,
        mask_ratio=config.mask_ratio,
        decoder_dim=config.decoder_dim,
        decoder_depth=config.decoder_depth,
        decoder_heads=config.decoder_heads,
        normalise_target=config.normalise_target,
    )
    patches = a.grid[0] * a.grid[1]
    crop = Augmentation(crop_scale=config.crop_scale, flip=config.flip)
    train_data = MaskedImages(data / "train", train_transform(a.image_size, crop, normalisation), patches=patches)
    val_data = MaskedImages(
        data / config.val_split, eval_transform(a.image_size, 224 / 256, normalisation), patches=patches
    )
    example: Batch = (torch.zeros(1, a.in_chans, *a.image_size), torch.zeros(1, patches), [])
    facts = Facts(
        data=str(data),
        train_split="train",
        val_split=config.val_split,
        train_images=len(train_data),
        val_images=len(val_data),
        architecture=asdict(a),
        weights=report,
        init=init,
        flops_per_image=count_flops(model, example),
    )
    return MAETask(
        config,
        model=model,
        train_data=train_data,
        val_data=val_data,
        facts=facts,
        normalisation=normalisation,
    )
