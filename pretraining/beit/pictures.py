"""Pictures of what BEiT predicts, as the tokenizer's decoder shows tokens."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from engine.drawing import write_figure
from pretraining.beit.model import MaskedImageModel

GREY = 0.5
TITLES = ("original", "{share:.0%} masked", "its tokens", "predicted tokens", "difference of the two")


def drawn_tokens(
    model: MaskedImageModel, image_BCHW: Tensor, pixel_BCHW: Tensor, mask_BN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels (B, C, H, W): the image masked, decoded from its tokens, and from visible and predicted tokens."""
    grid = model.encoder.architecture.grid
    with torch.no_grad():
        token_Bhw = model.tokenizer.tokens(pixel_BCHW)
        predicted_BN = token_Bhw.flatten(1).clone()
        predicted_BN[mask_BN] = model.predict(image_BCHW, pixel_BCHW, mask_BN).logit_BMV.argmax(dim=2).flatten()
        decoded = [model.tokenizer.decode(tokens) for tokens in (token_Bhw, predicted_BN.unflatten(1, grid))]
    step = model.tokenizer.downsampling
    masked_BHW = mask_BN.unflatten(1, grid).repeat_interleave(step, dim=1).repeat_interleave(step, dim=2)
    return torch.where(masked_BHW[:, None], GREY, pixel_BCHW), decoded[0], decoded[1]


def draw_tokens(path: Path, model: MaskedImageModel, image_BCHW: Tensor, pixel_BCHW: Tensor, mask_BN: Tensor) -> Path:
    """Write one row per image: original, masked, decoded from its tokens, from the predicted tokens, and between."""
    masked, true, predicted = drawn_tokens(model, image_BCHW, pixel_BCHW, mask_BN)
    columns = (pixel_BCHW, masked, true, predicted, (true - predicted).abs())
    count = pixel_BCHW.shape[0]
    figure = Figure(figsize=(2.05 * len(columns), 2.05 * count + 0.7), layout="constrained")
    cells = figure.subplots(count, len(columns), squeeze=False)
    for row in range(count):
        for axes, images in zip(cells[row], columns, strict=True):
            axes.imshow(images[row].float().cpu().permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
            axes.axis("off")
    share = float(mask_BN.float().mean())
    for axes, title in zip(cells[0], TITLES, strict=True):
        axes.set_title(title.format(share=share), fontsize=9)
    figure.suptitle("tokens as the tokenizer's decoder shows them; visible patches keep their own tokens", fontsize=8)
    write_figure(figure, path)
    return path
