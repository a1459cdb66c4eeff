"""Pictures of what MAE reconstructs: original, masked, and the prediction pasted beside the visible patches."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from backbones.checkpoint import Normalisation
from engine.files import replacing
from pretraining.mae import MaskedAutoencoder, unpatchify

GREY = 0.5


def pasted(model: MaskedAutoencoder, image_BCHW: Tensor, noise_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image with hidden patches grey, and with hidden patches predicted, both normalised (B, C, H, W).

    A normalised target is undone with the mean and deviation of the true patch, which the model never saw.
    """
    a = model.encoder.architecture
    with torch.no_grad():
        made = model.reconstruct(image_BCHW, noise_BN)
        target, mean, deviation = model.target(image_BCHW.float())
    original = target * deviation + mean
    hidden = made.mask_BN[:, :, None]
    predicted = torch.where(hidden, made.prediction_BNP * deviation + mean, original)
    masked = torch.where(hidden, torch.full_like(original, float("nan")), original)
    rows = [unpatchify(x, patch=a.patch_size, grid=a.grid) for x in (masked, predicted)]
    return rows[0], rows[1]


def draw_reconstructions(
    path: Path, model: MaskedAutoencoder, image_BCHW: Tensor, noise_BN: Tensor, normalisation: Normalisation
) -> Path:
    """Write one row per image: original, masked, reconstruction with the visible patches pasted in."""
    masked, predicted = pasted(model, image_BCHW, noise_BN)
    count = image_BCHW.shape[0]
    figure = Figure(figsize=(6.2, 2.05 * count + 0.7), layout="constrained")
    cells = figure.subplots(count, 3, squeeze=False)
    for row in range(count):
        for axes, image in zip(cells[row], (image_BCHW[row], masked[row], predicted[row]), strict=True):
            axes.imshow(_pixels(image, normalisation), interpolation="nearest")
            axes.axis("off")
    ratio = 1 - model.kept / noise_BN.shape[1]
    for axes, title in zip(cells[0], ("original", f"{ratio:.0%} masked", "reconstruction + visible"), strict=True):
        axes.set_title(title, fontsize=9)
    if model.normalise_target:
        figure.suptitle("target normalised per patch: mean and deviation of the true patches put back", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _pixels(image_CHW: Tensor, normalisation: Normalisation) -> object:
    """Return (H, W, 3) in [0, 1] as NumPy, NaN as grey."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (normalisation.mean, normalisation.std))
    image = image_CHW.float().cpu() * std + mean
    return image.nan_to_num(GREY).clamp(0, 1).permute(1, 2, 0).numpy()
