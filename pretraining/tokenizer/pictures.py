"""Pictures of a discrete VAE: what its tokens keep of an image, and how evenly the codebook is used."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from engine.drawing import write_figure
from pretraining.tokenizer.model import DiscreteVAE


def draw_reconstructions(path: Path, model: DiscreteVAE, pixel_BCHW: Tensor) -> Path:
    """Write two rows: images, and what the decoder makes of their tokens."""
    with torch.no_grad():
        made_BCHW = model.decode(model.tokens(pixel_BCHW))
    count = pixel_BCHW.shape[0]
    figure = Figure(figsize=(1.6 * count, 3.6), layout="constrained")
    cells = figure.subplots(2, count, squeeze=False)
    for row, images in enumerate((pixel_BCHW, made_BCHW)):
        for axes, image_CHW in zip(cells[row], images, strict=True):
            axes.imshow(image_CHW.float().cpu().permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.axis("off")
    cells[0][0].set_title("original", fontsize=9, loc="left")
    cells[1][0].set_title("from its tokens", fontsize=9, loc="left")
    write_figure(figure, path)
    return path


def draw_codebook(path: Path, counts: Sequence[int], *, used: float, perplexity: float) -> Path:
    """Write the share of each token among all tokens of the validation images, the most frequent first."""
    shares = [count / sum(counts) for count in sorted(counts, reverse=True)]
    figure = Figure(figsize=(6.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(shares)), shares, width=1.0, label="tokens of the validation images")
    axes.axhline(1 / len(shares), color="black", linewidth=0.8, linestyle="--", label="all alike")
    axes.set(xlabel="tokens of the codebook, by frequency", ylabel="share", xlim=(-0.5, len(shares) - 0.5))
    axes.set_title(f"{used:.0f} % of {len(shares)} tokens used; perplexity {perplexity:.0f}", fontsize=9)
    axes.legend(fontsize=8)
    write_figure(figure, path)
    return path
