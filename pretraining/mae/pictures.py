"""Pictures of what MAE reconstructs: original, masked, and the prediction pasted beside the visible patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from backbones.config import Grid
from backbones.weights.normalisation import Normalisation
from engine.drawing import label_text, write_figure
from engine.images.arrays import RGB, shown_as
from pretraining.mae.config import StatisticsOf
from pretraining.mae.model import MaskedAutoencoder, patchify, unpatchify
from pretraining.mae.target import PCATarget, patch_statistics, visible_statistics
from pretraining.mae.token_target import TokenTarget

GREY = 0.5
LONGEST = 28  # characters of a name, which fit beside an image of 1.5 inches


@dataclass(frozen=True, kw_only=True)
class Masked:
    """How an image is cut, and how its pixels are shown."""

    patch: int
    grid: Grid
    normalisation: Normalisation


@dataclass(frozen=True)
class Pasted:
    """Normalised images (B, C, H, W) of a reconstruction."""

    masked: Tensor
    """Masked patches NaN."""
    pasted: Tensor
    """Masked patches predicted, visible ones as they are."""
    predicted: Tensor
    """Every patch predicted; only the masked ones are trained for."""


def pasted(model: MaskedAutoencoder, image_BCHW: Tensor, noise_BN: Tensor, *, source: StatisticsOf = "true") -> Pasted:
    """Return the pictures of a reconstruction.

    A normalised target is undone with the mean and std of the `true` patch, which the model never saw, as the
    official demo does, or with the average ones of the `visible` patches of the image.
    """
    a = model.encoder.architecture
    with torch.no_grad():
        made = model.reconstruct(image_BCHW, noise_BN)
        true_BNP = model.patches(image_BCHW)
        if isinstance(model.target, TokenTarget):
            picture_BCHW = model.target.picture(made.prediction_BNP, image_BCHW, made.mask_BN)
            predicted_BNP = patchify(picture_BCHW, a.patch_size)
        else:
            s = patch_statistics(true_BNP) if source == "true" else visible_statistics(true_BNP, made.mask_BN)
            predicted_BNP = model.target.pixels(made.prediction_BNP, s)
    masked = made.mask_BN[:, :, None]
    parts = (
        torch.where(masked, torch.nan, true_BNP),
        torch.where(masked, predicted_BNP, true_BNP),
        predicted_BNP,
    )
    return Pasted(*(unpatchify(x, patch=a.patch_size, grid=a.grid) for x in parts))


def caption(model: MaskedAutoencoder, source: StatisticsOf = "true") -> str:
    """Return what a reader has to know of where the pixels come from."""
    lines = []
    if isinstance(model.target, TokenTarget):
        return "target: visual tokens, as the tokenizer's decoder shows them; visible patches keep their own tokens"
    if isinstance(model.target, PCATarget):
        lines.append(f"target: the {model.target.width} largest PCA coefficients of a patch, turned back into pixels")
    elif model.target.normalise and source == "true":
        lines.append("target normalised per patch; put back: mean and std of the true patches, which it never saw")
    elif model.target.normalise:
        lines.append("target normalised per patch; put back: average mean and std of the image's visible patches")
    if (channels := model.encoder.architecture.in_chans) != RGB:
        lines.append(f"{shown_as(channels)}, each from its mean less two std to its mean plus two")
    if model.variant.loss_on == "masked":
        lines.append("the loss is of masked patches, so what is predicted of visible ones means nothing")
    return "\n".join(lines)


def draw_reconstructions(
    path: Path,
    model: MaskedAutoencoder,
    image_BCHW: Tensor,
    noise_BN: Tensor,
    normalisation: Normalisation,
    *,
    source: StatisticsOf = "true",
    rows: Sequence[str] = (),
) -> Path:
    """Write one row per image: original, masked, predicted beside visible patches, and the prediction of all.

    `rows` are the images' names, where they are known.
    """
    made = pasted(model, image_BCHW, noise_BN, source=source)
    share = 1 - model.kept / noise_BN.shape[1]
    titles = ("original", f"{share:.0%} masked", "reconstruction + visible", "prediction alone")
    figure = Figure(figsize=(8.2, 2.05 * len(image_BCHW) + 0.7), layout="constrained")
    cells = figure.subplots(len(image_BCHW), len(titles), squeeze=False)
    for axes_row, *images in zip(cells, image_BCHW, made.masked, made.pasted, made.predicted, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(pixels(image, normalisation), interpolation="nearest")
            axes.axis("off")
    for axes, title in zip(cells[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    name_rows(cells, rows)
    figure.suptitle(caption(model, source), fontsize=8)
    write_figure(figure, path)
    return path


def draw_masks(
    path: Path, image_BCHW: Tensor, mask_SBN: Tensor, names: Sequence[str], view: Masked, *, rows: Sequence[str] = ()
) -> Path:
    """Write one row per image: itself, and its visible patches under each of the S masks, named in `names`.

    The share of patches that a mask really covers stands beside its name. `rows` are the images' names.
    """
    figure = Figure(figsize=(2.05 * (len(names) + 1), 2.05 * len(image_BCHW) + 0.4), layout="constrained")
    cells = figure.subplots(len(image_BCHW), len(names) + 1, squeeze=False)
    patches_BNP = patchify(image_BCHW, view.patch)
    for row, axes in enumerate(cells):
        shown = [torch.where(mask_BN[row, :, None], torch.nan, patches_BNP[row]) for mask_BN in mask_SBN]
        masked = [unpatchify(one[None], patch=view.patch, grid=view.grid)[0] for one in shown]
        for one, image in zip(axes, (image_BCHW[row], *masked), strict=True):
            one.imshow(pixels(image, view.normalisation), interpolation="nearest")
            one.axis("off")
    shares = [f"{float(mask_BN.float().mean()):.0%}" for mask_BN in mask_SBN]
    titles = (f"{name}, {share}" for name, share in zip(names, shares, strict=True))
    for one, title in zip(cells[0], ("original", *titles), strict=True):
        one.set_title(title, fontsize=9)
    name_rows(cells, rows)
    write_figure(figure, path)
    return path


def name_rows(cells: Any, names: Sequence[str]) -> None:
    """Write beside each row of axes the name of its image, the end of it where it is long; nothing without names."""
    for row, name in zip(cells, names, strict=bool(names)):
        place = {"rotation": "vertical", "ha": "right", "va": "center", "transform": row[0].transAxes}
        row[0].text(-0.03, 0.5, label_text(name, most=LONGEST, keep="end"), fontsize=6, **place)


def pixels(image_CHW: Tensor, normalisation: Normalisation) -> Any:
    """Return (H, W, 3) in [0, 1] as NumPy, NaN as grey; of other than three channels what `shown_as` says, from the
    mean less two std to the mean plus two."""
    if len(image_CHW) != RGB:
        shown = image_CHW[: RGB if len(image_CHW) > RGB else 1].float().cpu() / 4 + 0.5
        return shown.nan_to_num(GREY).clamp(0, 1).expand(RGB, -1, -1).permute(1, 2, 0).numpy()
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (normalisation.mean, normalisation.std))
    image = image_CHW.float().cpu() * std + mean
    return image.nan_to_num(GREY).clamp(0, 1).permute(1, 2, 0).numpy()
