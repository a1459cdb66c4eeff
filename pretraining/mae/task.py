"""MAE pre-training as a Task."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.normalise import Normalise, View
from backbones.param_groups import ParamGroup, exempt_vectors, param_groups
from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from classification.probe.while_training import FeatureProbe, with_probe
from engine.augment import augment_of
from engine.channels import channel_notes, normalisation_for
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.images.encoded import batch_of
from engine.images.reading import UnreadableImageError, evenly_spaced
from engine.records.results_file import ImageResult
from engine.task import Facts
from engine.training.seeding import derive, seeded
from pretraining.augment import training_view, validation_view
from pretraining.data import MaskedImages, Sample
from pretraining.mae.config import MAEConfig
from pretraining.mae.masking import draw_noise, kept_count
from pretraining.mae.model import MaskedAutoencoder, Variant, patchify
from pretraining.mae.official import put_into, read_official, write_start
from pretraining.mae.pictures import draw_reconstructions
from pretraining.mae.target import PCATarget, fit_pca
from pretraining.mae.token_target import TokenTarget
from pretraining.spec import MAE
from pretraining.splits import open_splits
from pretraining.tokenizer.opening import open_tokenizer

Batch = tuple[Any, Tensor, list[str]]
PICTURED = 8  # validation images in the reconstruction picture
PCA_IMAGES = 1000  # training images that a PCA is fitted on: 196,000 patches at 224 px


class MAETask:
    """Reconstruction of masked pixels; ends in a backbone checkpoint of the encoder alone."""

    name, primary_metric = MAE.name, MAE.primary.name
    steps_alike = True
    probe: FeatureProbe | None = None

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

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Return pixels (B, C, H, W), or what becomes them on the device, noise (B, N) and ids.

        The views of an image are one after another.
        """
        images, noise, ids = zip(*samples, strict=True)
        return batch_of(images, torch.cat), torch.cat(noise), list(ids)

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
        chosen = evenly_spaced(indices, PICTURED)
        images = torch.stack([self.val_data.view_of(i) for i in chosen])
        with seeded(derive(self.config.run.seed, "pictures")):
            noise = torch.stack([self.val_data.noise() for _ in chosen])
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

    def write_start(self, out: Path) -> None:
        """Write the checkpoint that the run goes on from where it continues one of the official code."""
        if self.config.resume_from is not None:
            run = self.config.run
            found = read_official(Path(self.config.resume_from))
            write_start(out, found, self.model, run, groups=self.param_groups(run.optim), images=len(self.train_data))

    def finish(self, folder: Path) -> list[Path]:
        """Write backbone.safetensors, the encoder."""
        return [leave_backbone(folder, self.model.encoder, source="mae", normalisation=self.normalisation)]


def build_task(config: MAEConfig, *, data: Path, init: InitialWeights | None, trust_tokenizer: bool = False) -> MAETask:
    """Return MAE on the images below `data/train`, from random weights or an encoder checkpoint."""
    a, continued = config.encoder, None if config.resume_from is None else Path(config.resume_from)
    if continued is not None and init is not None and init.path != continued:
        raise ValueError(f"--init {init.path} and --resume-from {continued} were both given; the run has one start.")
    encoder = ViT(a, train_position=a.position == "learned")
    report, found = start_from(encoder, None if continued else init)
    normalisation = normalisation_for(config, found, a.in_chans)
    patches = a.grid[0] * a.grid[1]
    noise = partial(draw_noise, a.grid, kept=kept_count(patches, config.mask_ratio), sampling=config.sampling)
    view = training_view(
        config.augmentation,
        a.image_size,
        normalisation,
        scale=config.crop_scale,
        flip=config.flip,
        decode=config.decode,
        resize=config.resize,
    )
    centre = validation_view(a.image_size, normalisation)
    splits = open_splits(data, config, a.in_chans)
    train_data = MaskedImages(splits.train, view, noise=noise, repeats=config.repeats, augment=augment_of(config.run))
    val_data = MaskedImages(splits.val, centre, noise=noise)
    target: PCATarget | TokenTarget | None = None
    notes = [*channel_notes(config, found, a.in_chans), *splits.notes]
    if config.target == "tokens":
        target = token_target(config, normalisation, trust_tokenizer=trust_tokenizer)
    if config.target == "pca":
        target, note = fit_target(train_data, centre, patch=a.patch_size, components=config.pca_components)
        notes.append(note)
    if config.repeats > 1:
        notes.append(f"{config.repeats} crops of every loaded image: a step trains on as many times its batch")
    model = autoencoder(config, encoder, target, Normalise(normalisation))
    if continued is not None:
        report = put_into(read_official(continued), model, config.run, images=len(train_data))
    example: Batch = (torch.zeros(1, a.in_chans, *a.image_size), torch.zeros(1, patches), [])
    frozen = count_flops(target.tokens, example[0]) if isinstance(target, TokenTarget) else 0
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
        data_notes=tuple(notes),
        extra={"tokenizer": target.tokenizer.sha256} if isinstance(target, TokenTarget) else {},
        flops_per_image=count_flops(model, example) - frozen,
        frozen_flops_per_image=frozen,
        views_per_image=config.repeats,
    )
    task = MAETask(
        config,
        model=model,
        train_data=train_data,
        val_data=val_data,
        facts=facts,
        normalisation=normalisation,
    )
    return with_probe(task, config, encoder, normalisation)


def token_target(config: MAEConfig, normalisation: Normalisation, *, trust_tokenizer: bool = False) -> TokenTarget:
    """Return the tokens of the tokenizer that is named. Raises ValueError or FileNotFoundError without one.

    `trust_tokenizer` is the command line's word that its pickles may run; that of the configuration is not asked.
    """
    tokenizer = open_tokenizer(config.tokenizer, config.tokenizer_kind, trust_pickle=trust_tokenizer)
    return TokenTarget(tokenizer, normalisation, config.encoder.grid)


def autoencoder(
    config: MAEConfig,
    encoder: ViT,
    target: PCATarget | TokenTarget | None = None,
    normalise: Normalise | None = None,
) -> MaskedAutoencoder:
    """Return the model; `target` takes the place of pixels: PCA coefficients or tokens."""
    return MaskedAutoencoder(
        encoder,
        mask_ratio=config.mask_ratio,
        decoder_dim=config.decoder_dim,
        decoder_depth=config.decoder_depth,
        decoder_heads=config.decoder_heads,
        normalise_target=config.target == "normalised",
        variant=Variant(
            mask_token=config.mask_token,
            decoder_position=config.decoder_position,
            loss_on=config.loss_on,
            target=target,
        ),
        normalise=normalise,
    )


def fit_target(data: MaskedImages, view: View, *, patch: int, components: int) -> tuple[PCATarget, str]:
    """Return PCA coefficients of the patches of evenly spaced images as a target, and a line on them for people.

    Raises ValueError where none can be read.
    """
    chosen = evenly_spaced(range(len(data)), PCA_IMAGES)
    unreadable: list[str] = []

    def patches() -> Iterator[Tensor]:
        for index in chosen:
            try:
                yield patchify(view(data.images.read(index))[None], patch)[0]
            except UnreadableImageError as error:
                unreadable.append(error.path)
                if len(unreadable) == len(chosen):
                    raise ValueError(
                        f"none of the {len(chosen)} images that the target is fitted on can be read; the last: {error}"
                    ) from error

    pca = fit_pca(patches(), components)
    left_out = f", {len(unreadable)} unreadable ones left out ({', '.join(unreadable[:3])})" if unreadable else ""
    note = (
        f"target: {components} of {pca.mean_P.shape[0]} PCA coefficients, {pca.explained:.1%} of the variance of the "
        f"patches of {len(chosen) - len(unreadable)} training images{left_out}"
    )
    return PCATarget(pca.mean_P, pca.components_TP), note
