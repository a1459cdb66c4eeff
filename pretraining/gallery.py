"""Pictures of a pre-trained model on a folder of images: from a run, or from a file of weights.

Reconstructions need MAE's decoder, which a run of MAE keeps in its checkpoints and a `backbone.safetensors` does not
have; of the published files those called full and visualize hold it. The other pictures need the ViT alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import BACKBONE_NAME, InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.normalisation import IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint
from engine.images.reading import ImageSource, UnreadableImageError, evenly_spaced, open_images
from engine.records.own_files import own_file
from engine.records.record import RECORD_NAME, RunRecord, read_record, standing
from engine.runs.bounds import refuse_beyond
from engine.runs.reopen import named_files
from engine.training.resume import FOLDER as CHECKPOINTS
from engine.training.resume import checkpoints, load_model
from engine.training.seeding import seeded
from files.naming import refuse_within
from files.typed import from_json
from pretraining.augment import validation_view
from pretraining.feature_pictures import class_features, draw_attention, draw_neighbours, draw_positions
from pretraining.mae.config import MAEConfig, Sampling, StatisticsOf, TargetKind
from pretraining.mae.masking import draw_noise, keep_lowest, kept_count
from pretraining.mae.model import MaskedAutoencoder
from pretraining.mae.pictures import Masked, draw_masks, draw_reconstructions
from pretraining.mae.target import PCATarget
from pretraining.mae.task import autoencoder, token_target
from pretraining.mae.token_target import TokenTarget

SEARCHED = 256  # images among which neighbours are looked for
SAMPLINGS: tuple[Sampling, ...] = ("random", "block", "grid")


@dataclass(frozen=True)
class Shown:
    """A model to draw pictures of."""

    encoder: ViT
    autoencoder: MaskedAutoencoder | None
    """None where there is no decoder."""
    normalisation: Normalisation
    notes: tuple[str, ...] = ()
    """What was read by the word of a record alone."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What a file of weights does not say of its decoder."""

    heads: int = 16
    """Attention heads; all published decoders have 16."""
    target: TargetKind | None = None
    """pixels or normalised."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are made."""

    mask_ratio: float = 0.75
    sampling: Sampling = "random"
    statistics: StatisticsOf = "true"
    """Whose mean and std a normalised target is undone with."""
    images: int = 8
    """Images drawn, evenly spaced in the folder."""
    seed: int = 0
    """Of the masks."""


@dataclass(frozen=True)
class Named:
    """Centre crops of images."""

    image_BCHW: Tensor
    names: tuple[str, ...]
    """The paths below the folder."""

    def spread(self, count: int) -> "Named":
        """Return `count` of them, evenly spaced, or all."""
        chosen = evenly_spaced(range(len(self.names)), count)
        return Named(self.image_BCHW[chosen], tuple(self.names[number] for number in chosen))


@dataclass(frozen=True)
class Gallery:
    """What was drawn, and what people have to know of it."""

    pictures: tuple[Path, ...]
    notes: tuple[str, ...]


def open_run(run: Path, *, trust_tokenizer: bool = False) -> Shown:
    """Return the model of a run: with its decoder where it is one of MAE, else what its backbone.safetensors holds.

    `trust_tokenizer` lets the pickles of the run's tokenizer run; what its record says of trust is not asked. Raises
    ValueError or FileNotFoundError where the folder holds no record, or neither checkpoint nor backbone, and for a
    backbone that is not the record's.
    """
    record = read_record(run)
    if record.task != "mae":
        if (path := own_file(run, record, BACKBONE_NAME)) is None:
            raise FileNotFoundError(
                f"{run / BACKBONE_NAME}: no such file; a run of pre-training writes it at its end, and this one is of "
                f"{record.task} ({standing(run, record)} at step {record.steps} of {record.total_steps}). A tokenizer "
                "has no ViT."
            )
        return open_file(InitialWeights(path=path), Decoder())
    saved = checkpoints(run)
    if not saved:
        raise FileNotFoundError(f"{run}: holds no checkpoint (status {standing(run, record)}, step {record.steps}).")
    config = from_json(MAEConfig, record.config)
    refuse_beyond(config, saved[-1], run / RECORD_NAME)
    a = config.encoder
    normalisation = config.normalisation or _normalisation(run, record)
    target: PCATarget | TokenTarget | None = None
    if config.target == "tokens":
        target = token_target(config, normalisation, trust_tokenizer=trust_tokenizer)
    if config.target == "pca":
        pixels = a.patch_size**2 * a.in_chans
        target = PCATarget(torch.zeros(pixels), torch.zeros(config.pca_components, pixels))
    model = autoencoder(config, ViT(a), target)
    load_model(saved[-1], model)
    return Shown(model.encoder, model, normalisation, tuple(named_files(config)))


def open_file(declared: InitialWeights, decoder: Decoder) -> Shown:
    """Return the model of a weights file, with its decoder where it has one.

    Raises what reading raises, and ValueError where it has a decoder and `decoder.target` is not stated.
    """
    checkpoint = read_checkpoint(declared)
    encoder, _ = vit_in(checkpoint)
    if "decoder_pred.weight" not in checkpoint.state:
        return Shown(encoder, None, checkpoint.normalisation)
    return Shown(encoder, _with_decoder(checkpoint, encoder, decoder), checkpoint.normalisation)


def make_gallery(shown: Shown, folder: Path, out: Path, options: Options) -> Gallery:
    """Write the pictures that the model can give of the images below `folder`, files or in tar shards.

    Raises what `open_images` raises, ValueError where no image can be read or none is asked for, where `folder` is a
    file or holds `out`. Images have as many channels as the model is of.
    """
    if options.images < 1:
        raise ValueError(f"--count is {options.images}; at least 1 image is drawn.")
    if folder.is_file():
        raise ValueError(f"{folder}: is a file, and a folder of images is needed, such as {folder.parent}.")
    refuse_within(out, [folder])
    encoder = shown.encoder.eval()
    a = encoder.architecture
    images, notes = _read(open_images(folder, a.in_chans), shown)
    notes = [*shown.notes, *notes]
    drawn = images.spread(options.images)
    few, rows = drawn.image_BCHW, drawn.names
    pictures: list[Path] = []
    if (model := shown.autoencoder) is None:
        notes.append("reconstructions: the weights have no decoder; give a run of MAE, or a file that has one")
    else:
        model.eval()
        model.kept = kept_count(a.grid[0] * a.grid[1], options.mask_ratio)
        noise = mask_noise(shown, options, options.sampling, len(few))
        path, source = out / "reconstructions.png", options.statistics
        pictures.append(draw_reconstructions(path, model, few, noise, shown.normalisation, source=source, rows=rows))
    kept = kept_count(a.grid[0] * a.grid[1], options.mask_ratio)
    masks = torch.stack([keep_lowest(mask_noise(shown, options, s, len(few)), kept)[1] for s in SAMPLINGS])
    view = Masked(patch=a.patch_size, grid=a.grid, normalisation=shown.normalisation)
    pictures.append(draw_masks(out / "masks.png", few, masks, SAMPLINGS, view, rows=rows))
    pictures.append(draw_attention(out / "attention.png", encoder, few, shown.normalisation, rows=rows))
    if len(images.names) == 1:
        notes.append("neighbours: there is one image alone")
    else:
        path, features = out / "neighbours.png", class_features(encoder, images.image_BCHW)
        count, names = options.images, images.names
        pictures.append(
            draw_neighbours(path, images.image_BCHW, features, shown.normalisation, queries=count, names=names)
        )
    if encoder.pos_embed is None:
        notes.append("positions: the ViT has no position table")
    else:
        pictures.append(draw_positions(out / "positions.png", encoder.pos_embed, a.grid, encoder.num_prefix_positions))
    return Gallery(tuple(pictures), tuple(notes))


def open_any(declared: InitialWeights, decoder: Decoder) -> Shown:
    """Return the model of a run's folder, of which nothing but trust is to be declared, or of a file.

    Raises what those raise, ValueError for a folder that is no run, for what a run says of itself, and for one of its
    checkpoints.
    """
    path = declared.path
    if (path / RECORD_NAME).is_file():
        if replace(declared, trust_pickle=False) != InitialWeights(path=path) or decoder != Decoder():
            raise ValueError(
                f"{path}: is a run, which knows its weights; --init-source, --init-heads, --target and --decoder-heads "
                "are for a file of weights. Leave them out."
            )
        return open_run(path, trust_tokenizer=declared.trust_pickle)
    if path.is_dir():
        raise ValueError(f"{path}: holds no {RECORD_NAME}, so it is no run; give a run's folder or a file of weights.")
    if path.parent.name == CHECKPOINTS and path.match("step-*.pt"):
        raise ValueError(
            f"{path}: is a checkpoint of the run {path.parent.parent}; give that folder, its last one is taken."
        )
    return open_file(declared, decoder)


def _with_decoder(checkpoint: Checkpoint, encoder: ViT, decoder: Decoder) -> MaskedAutoencoder:
    state = checkpoint.state
    if decoder.target not in ("pixels", "normalised"):
        raise ValueError(
            f"{checkpoint.path}: no tensor tells whether its decoder predicts pixels or normalised ones; say --target "
            "pixels (published: visualize) or --target normalised (published: full)."
        )
    parts = {name: tensor for name, tensor in state.items() if name == "mask_token" or name.startswith("decoder_")}
    width = state["decoder_embed.weight"].shape[0]
    if decoder.heads < 1 or width % decoder.heads:
        raise ValueError(
            f"{checkpoint.path}: its decoder is {width} wide, which {decoder.heads} attention heads do not divide; say "
            "--decoder-heads."
        )
    model = MaskedAutoencoder(
        encoder,
        mask_ratio=0.75,
        decoder_dim=width,
        decoder_depth=len({name.split(".")[1] for name in parts if name.startswith("decoder_blocks.")}),
        decoder_heads=decoder.heads,
        normalise_target=decoder.target == "normalised",
    )
    try:
        model.load_state_dict({f"encoder.{n}": t for n, t in encoder.state_dict().items()} | parts)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint.path}: its decoder is none of MAE's: {error}") from error
    return model


def _normalisation(run: Path, record: RunRecord) -> Normalisation:
    """Return what the run normalised pixels with."""
    if (backbone := own_file(run, record, BACKBONE_NAME)) is not None:
        return read_checkpoint(InitialWeights(path=backbone)).normalisation
    if record.weights_path is None or record.weights_source == "mae":
        return IMAGENET
    raise FileNotFoundError(f"{run / BACKBONE_NAME}: no such file yet; it says what pixels are normalised with.")


def _read(source: ImageSource, shown: Shown) -> tuple[Named, list[str]]:
    """Return the centre crops of SEARCHED or all images, and notes on them and what was not readable."""
    found = len(source)
    chosen = evenly_spaced(range(found), SEARCHED)
    view = validation_view(shown.encoder.architecture.image_size, shown.normalisation)
    images, names, unreadable = [], [], []
    notes = [*source.notes]
    if found > SEARCHED:
        notes.append(
            f"{SEARCHED} of {found:,} images, evenly spaced in the folder, are read and searched for neighbours"
        )
    for index in chosen:
        try:
            images.append(view(source.read(index)))
            names.append(source.image_id(index))
        except UnreadableImageError as error:
            unreadable.append(str(error))
    if not images:
        raise ValueError(f"none of {len(chosen)} images could be read; the first: {unreadable[0]}")
    return Named(torch.stack(images), tuple(names)), [*notes, *(f"left out: {text}" for text in unreadable)]


def mask_noise(shown: Shown, options: Options, sampling: Sampling, count: int) -> Tensor:
    """Return the noise whose lowest values are kept, for `count` images, (B, N), drawn by the seed of the options."""
    grid = shown.encoder.architecture.grid
    kept = kept_count(grid[0] * grid[1], options.mask_ratio)
    with seeded(options.seed):
        return torch.stack([draw_noise(grid, kept=kept, sampling=sampling) for _ in range(count)])
