"""Inpainting by a pre-trained MAE: patches that are hidden, as the decoder predicts them.

Axis letters: B images, C channels, H x W pixels, h x w patches, N of them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.config import FAMILY, ViTConfig
from backbones.normalise import Normalise
from backbones.vit import ViT
from backbones.weights.declaration import BACKBONE_NAME, InitialWeights
from backbones.weights.loader import RANDOM, LoadReport
from backbones.weights.normalisation import IMAGENET, Normalisation
from engine.records.record import RECORD_NAME
from engine.training.resume import checkpoints
from files.digest import file_sha256
from pretraining.gallery import Decoder, open_any
from pretraining.mae.model import MaskedAutoencoder
from pretraining.mae.pictures import pasted
from pretraining.mae.target import PixelTarget


class Painter:
    """An MAE that fills in what is hidden."""

    def __init__(
        self, model: MaskedAutoencoder, normalisation: Normalisation, report: LoadReport, notes: tuple[str, ...] = ()
    ) -> None:
        """Raises ValueError for a target that says nothing of a hidden patch's brightness."""
        if isinstance(model.target, PixelTarget) and model.target.normalise:
            raise ValueError(
                f"{report.path}: its decoder predicts pixels normalised by their own patch, which do not tell how "
                "bright a hidden patch is; pre-train with --target pixels (published: mae_visualize)."
            )
        self.model, self.normalisation, self.report, self.notes = model.eval(), normalisation, report, notes
        self.model.requires_grad_(False)
        self.normalise = Normalise(normalisation)

    @property
    def encoder(self) -> ViT:
        """Of the model."""
        return self.model.encoder

    def to(self, device: torch.device) -> "Painter":
        """Move it."""
        self.model.to(device)
        self.normalise.to(device)
        return self

    def paint(self, image_BCHW: Tensor, hidden_hw: np.ndarray) -> np.ndarray:
        """Return images given as bytes with the hidden patches predicted, the others as they are, (B, H, W, C) of
        0 to 255 as floats, which may go beyond."""
        device = self.model.mask_token.device
        hidden_N = torch.from_numpy(hidden_hw.reshape(-1)).to(device)
        self.model.kept = int((~hidden_N).sum())
        noise_BN = hidden_N.float()[None].expand(len(image_BCHW), -1)
        with torch.no_grad():
            made_BCHW = pasted(self.model, self.normalise(image_BCHW.to(device)), noise_BN).pasted
        pixel_BCHW = made_BCHW.float() * self.normalise.std + self.normalise.mean
        return pixel_BCHW.permute(0, 2, 3, 1).cpu().numpy()

    def untrained(self) -> "Painter":
        """Return the same architecture with random weights, predicting plain pixels."""
        m = self.model
        encoder = ViT(
            m.encoder.architecture,
            class_token=m.encoder.cls_token is not None,
            final_norm=isinstance(m.encoder.norm, torch.nn.LayerNorm),
        )
        model = MaskedAutoencoder(
            encoder,
            mask_ratio=0.75,
            decoder_dim=m.decoder_embed.out_features,
            decoder_depth=len(m.decoder_blocks),
            decoder_heads=m.decoder_blocks[0].attn.num_heads,  # type: ignore[union-attr,arg-type]
            normalise_target=False,
            variant=replace(m.variant, target=None),
        )
        return Painter(model, self.normalisation, RANDOM)


DECODER_DEPTH = 2  # of random weights: that of the small recipes


def random_painter(architecture: ViTConfig) -> Painter:
    """Return an MAE with random weights: a decoder of two blocks, as wide as the encoder."""
    model = MaskedAutoencoder(
        ViT(architecture),
        mask_ratio=0.75,
        decoder_dim=architecture.embed_dim,
        decoder_depth=DECODER_DEPTH,
        decoder_heads=architecture.num_heads,
        normalise_target=False,
    )
    return Painter(model, IMAGENET, RANDOM)


def open_painter(declared: InitialWeights, decoder: Decoder, architecture: ViTConfig) -> Painter:
    """Return the MAE of a run of pre-training, or of a file with a decoder.

    A run's `backbone.safetensors` stands for its run, whose last checkpoint has the decoder. Raises what reading
    raises, and ValueError for weights without a decoder, and for an encoder that is not of `architecture`.
    """
    path = declared.path
    if path.name == BACKBONE_NAME and (path.parent / RECORD_NAME).is_file():
        declared = replace(declared, path=path.parent)
    shown = open_any(declared, decoder)
    if shown.autoencoder is None:
        raise ValueError(
            f"{path}: has no decoder, which inpainting needs; give the folder of a run of MAE, or a file that was "
            "saved with one (published: mae_visualize). --method retrieval needs none."
        )
    found = shown.encoder.architecture
    if found != architecture:
        shape = {**vars(found), "image_size": None}
        name = next((name for name, known in FAMILY.items() if {**vars(known), "image_size": None} == shape), None)
        sides = f"--image-size {found.image_size[0]} {found.image_size[1]}"
        advice = f"give {name} {sides}" if name else f"give its width, depth and patches as flags, and {sides}"
        raise ValueError(
            f"{path}: its encoder has width {found.embed_dim}, {found.depth} blocks, patches of {found.patch_size} and "
            f"images of {found.image_size} pixels; asked for are {architecture.embed_dim}, {architecture.depth}, "
            f"{architecture.patch_size} and {architecture.image_size}; {advice}."
        )
    tensors = tuple(shown.autoencoder.state_dict())
    report = LoadReport(path=str(path), source="mae", digest=lambda: file_sha256(_file(path)), loaded=tensors)
    return Painter(shown.autoencoder, shown.normalisation, report, shown.notes)


def _file(path: Path) -> Path:
    """Return the file whose digest weights are known by: of a run its encoder, without one its last checkpoint."""
    if not path.is_dir():
        return path
    return path / BACKBONE_NAME if (path / BACKBONE_NAME).is_file() else checkpoints(path)[-1]
