"""What the Python face returns: a backbone, and a trained run.

Axis letters: B images, T tokens, D width, h x w patches.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import located
from backbones.weights.initial import vit_in
from backbones.weights.loader import LoadReport
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from engine.channels import refuse_channels
from engine.images.reading import read_rgb
from engine.runs.predict import Predicts
from engine.runs.trained import On, open_trained
from mae_transfer.tasks import TASKS
from pretraining.feature_pictures import last_attention

Picture = str | Path | Image.Image | np.ndarray  # a file; or RGB, greyscale; an array is (H, W) or (H, W, 3) of uint8


def as_image(picture: Picture) -> Image.Image:
    """Return a picture as an RGB image. Raises UnreadableImageError for a file, ValueError for an array."""
    if isinstance(picture, str | Path):
        return read_rgb(Path(picture))
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            raise ValueError(
                f"an array of {picture.dtype} and shape {picture.shape} is no picture; give uint8, (H, W) or (H, W, 3)."
            )
        picture = Image.fromarray(picture)
    return picture.convert("RGB")


@dataclass(frozen=True)
class Backbone:
    """A ViT with the weights of a file, in eval mode."""

    vit: ViT
    normalisation: Normalisation
    """Of the pixels, as the weights were trained."""
    report: LoadReport
    """What became of every tensor of the file."""

    @classmethod
    def load(cls, path: Path, *, source: str, device: str, **declared: Any) -> "Backbone":
        """Return the ViT in a file; raises what reading and loading raise."""
        checkpoint = read_checkpoint(located(InitialWeights(path=path, source=source, **declared)))
        vit, report = vit_in(checkpoint)
        return cls(vit.to(device).eval(), checkpoint.normalisation, report)

    def pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """Return pictures as the ViT takes them, (B, 3, H, W): resized to its image size (bicubic) and normalised.

        The whole picture is resized, whatever its shape; crop it before where the shape matters. Raises ValueError for
        a ViT of other than three channels, whose `vit` takes a tensor.
        """
        refuse_channels(self.vit.architecture.in_chans, "a picture that is given here")
        height, width = self.vit.architecture.image_size
        images = [as_image(one).resize((width, height), Image.Resampling.BICUBIC) for one in pictures]
        image_BHWC = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in asdict(self.normalisation).values())
        device = next(self.vit.parameters()).device
        return ((image_BHWC.permute(0, 3, 1, 2) / 255 - mean) / std).to(device)

    @torch.no_grad()
    def features(self, pictures: Sequence[Picture]) -> Tensor:
        """Return every token, (B, T, D), the class token first, after the final norm, where the weights have them."""
        tokens: Tensor = self.vit(self.pixels(pictures))
        return tokens

    @torch.no_grad()
    def feature_maps(self, pictures: Sequence[Picture], blocks: Sequence[int] | None = None) -> list[Tensor]:
        """Return the patch tokens after each of `blocks` (0-based, ascending; the last unless given), (B, D, h, w)."""
        return self.vit.feature_maps(self.pixels(pictures), blocks or [len(self.vit.blocks) - 1])

    def attention(self, pictures: Sequence[Picture]) -> Tensor:
        """Return how much the class token of the last block attends to each patch, by head, (B, heads, h, w).

        Without a class token it is the average of all patches. Each head sums to what it gives patches, at most 1.
        Raises ValueError where attention stays in windows.
        """
        return last_attention(self.vit, self.pixels(pictures))


@dataclass(frozen=True)
class Run:
    """The model of a run's last checkpoint."""

    trained: Predicts
    fabric: Fabric
    notes: tuple[str, ...]
    """What was read as the record says alone."""

    @classmethod
    def load(cls, folder: Path, *, device: str) -> "Run":
        """Return the model of a run; raises as `open_trained`, and ValueError for a run that makes no predictions."""
        notes: list[str] = []
        opened = open_trained(folder, TASKS, On(device=device), say=notes.append)
        if not isinstance(opened.trained, Predicts):
            raise ValueError(f"{folder}: a run of task {opened.recorded.spec.name!r}, which makes no predictions.")
        return cls(opened.trained, opened.fabric, tuple(notes))

    def predict(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """Return what the model says of each picture, as `tools/predict.py` writes it. Raises UnreadableImageError."""
        with ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
            paths = [_file(one, folder / f"{number}.png") for number, one in enumerate(pictures)]
            with torch.no_grad(), self.fabric.autocast():
                return [self.trained.predict_image(path) for path in paths]


def _file(picture: Picture, path: Path) -> Path:
    """Return a picture as a file, since a task reads files: as it is, or written without loss."""
    if isinstance(picture, str | Path):
        return Path(picture)
    as_image(picture).save(path)
    return path
