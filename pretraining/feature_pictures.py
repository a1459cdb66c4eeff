"""Pictures of what a ViT has learned: attention of its class token, nearest neighbours, similarity of positions.

Axis letters: B images, C channels, H x W pixels, h x w patches, T tokens, D width, K neighbours.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from backbones.attention import Attention, TableBias
from backbones.config import Grid
from backbones.position import sincos_table
from backbones.relative_position import decomposed_bias
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from engine.drawing import write_figure
from engine.images.reading import evenly_spaced
from pretraining.mae.pictures import name_rows, pixels

AT_ONCE = 32  # images of one forward pass
NEIGHBOURS = 5
DPI = 110


def class_features(encoder: ViT, image_BCHW: Tensor) -> Tensor:
    """Return the class tokens (the mean of the patches where there is none) after the final norm, (B, D)."""
    device = next(encoder.parameters()).device
    parts = []
    with torch.no_grad():
        for some in image_BCHW.split(AT_ONCE):
            token_BTD = encoder(some.to(device)).float().cpu()
            first = encoder.num_prefix_tokens
            parts.append(token_BTD[:, 0] if encoder.cls_token is not None else token_BTD[:, first:].mean(dim=1))
    return torch.cat(parts)


def nearest(feature_BD: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the `count` other images of the largest cosine (B, K), and the cosines, descending.

    The mean of all features is taken out first: it makes up most of MAE's, and all cosines nearly 1.
    """
    unit_BD = F.normalize(feature_BD.double() - feature_BD.double().mean(dim=0), dim=1)
    cosine_BB = (unit_BD @ unit_BD.T).fill_diagonal_(-torch.inf)
    cosine_BK, number_BK = cosine_BB.topk(min(count, len(feature_BD) - 1), dim=1)
    return number_BK, cosine_BK


def last_attention(encoder: ViT, image_BCHW: Tensor) -> Tensor:
    """Return how much the class token of the last block attends to each patch, by head, (B, heads, h, w).

    Without a class token it is the average of all patches. Each head sums to what it gives patches, at most 1. Raises
    ValueError where attention stays in windows.
    """
    a = encoder.architecture
    if a.windowed(a.depth - 1):
        raise ValueError("the last block attends within windows, so there is no attention over the image to draw.")
    last = encoder.blocks[-1].attn
    assert isinstance(last, Attention)
    inputs: list[tuple[Tensor, Tensor | None]] = []  # with the turn of rotary positions
    hook = last.register_forward_pre_hook(lambda _, given: inputs.append((given[0], given[3])))
    try:
        with torch.no_grad():
            encoder(image_BCHW)
    finally:
        hook.remove()
    grid = (image_BCHW.shape[2] // a.patch_size, image_BCHW.shape[3] // a.patch_size)
    with torch.no_grad():
        weight_BhTT = _weights(last, *inputs[0], grid, encoder.rel_pos_bias)
    first = encoder.num_prefix_tokens
    row_BhN = (weight_BhTT[:, :, 0] if encoder.cls_token is not None else weight_BhTT[:, :, first:].mean(dim=2))[
        ..., first:
    ]
    return row_BhN.unflatten(2, grid).float()


def position_similarity(table_1PD: Tensor, grid: Grid, num_prefix_positions: int) -> Tensor:
    """Return the cosine of every patch's position with every other's, (h, w, h, w)."""
    unit_ND = F.normalize(table_1PD[0, num_prefix_positions:].detach().double(), dim=1)
    return (unit_ND @ unit_ND.T).float().reshape(*grid, *grid)


def draw_neighbours(
    path: Path,
    image_BCHW: Tensor,
    feature_BD: Tensor,
    normalisation: Normalisation,
    *,
    queries: int,
    names: Sequence[str] = (),
) -> Path:
    """Write a row for each of `queries` evenly spaced images: itself and its nearest by the cosine of features.

    `names` are those of all images, where they are known.
    """
    number_BK, cosine_BK = nearest(feature_BD, NEIGHBOURS)
    numbers = evenly_spaced(range(len(image_BCHW)), queries)
    count, width = len(numbers), number_BK.shape[1] + 1
    figure = Figure(figsize=(1.5 * width, 1.7 * count + 0.4), layout="constrained")
    cells = figure.subplots(count, width, squeeze=False)
    for row, query in enumerate(numbers):
        shown = [
            (query, "query"),
            *((int(n), f"{c:.3f}") for n, c in zip(number_BK[query], cosine_BK[query], strict=True)),
        ]
        for axes, (number, title) in zip(cells[row], shown, strict=True):
            axes.imshow(pixels(image_BCHW[number], normalisation))
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    name_rows(cells, [names[number] for number in numbers] if names else ())
    figure.suptitle(
        f"nearest of {len(image_BCHW)} images by the cosine of their class tokens, the mean taken out", fontsize=8
    )
    return _write(figure, path)


def draw_attention(
    path: Path, encoder: ViT, image_BCHW: Tensor, normalisation: Normalisation, *, rows: Sequence[str] = ()
) -> Path:
    """Write a row for each image: itself, the mean attention of the last block's heads, and each head.

    `rows` are the images' names, where they are known.
    """
    weight_BhHW = F.interpolate(last_attention(encoder, image_BCHW).cpu(), image_BCHW.shape[2:], mode="nearest")
    heads = weight_BhHW.shape[1]
    figure = Figure(figsize=(1.5 * (heads + 2), 1.6 * len(image_BCHW) + 0.5), layout="constrained")
    cells = figure.subplots(len(image_BCHW), heads + 2, squeeze=False)
    for row, axes in enumerate(cells):
        axes[0].imshow(pixels(image_BCHW[row].cpu(), normalisation))
        for column, weight in enumerate([weight_BhHW[row].mean(dim=0), *weight_BhHW[row]], start=1):
            axes[column].imshow(weight.numpy(), cmap="viridis")
        for one in axes:
            one.axis("off")
    for one, title in zip(cells[0], ("image", "mean of heads", *(f"head {h}" for h in range(heads))), strict=True):
        one.set_title(title, fontsize=8)
    name_rows(cells, rows)
    of = "class token" if encoder.cls_token is not None else "average patch"
    figure.suptitle(f"what the {of} attends to in the last block; each map has its own scale", fontsize=8)
    return _write(figure, path)


def draw_positions(path: Path, table_1PD: Tensor, grid: Grid, num_prefix_positions: int) -> Path:
    """Write, for patches over the grid, the cosine of their position with all others (ViT, figure 7)."""
    similar_hwhw = position_similarity(table_1PD.cpu(), grid, num_prefix_positions)
    least = float(similar_hwhw.min())
    shown = [sorted({round(k * (side - 1) / 6) for k in range(7)}) for side in grid]
    figure = Figure(figsize=(1.1 * len(shown[1]) + 1.0, 1.15 * len(shown[0]) + 0.5), layout="constrained")
    cells = figure.subplots(len(shown[0]), len(shown[1]), squeeze=False)
    for axes_row, row in zip(cells, shown[0], strict=True):
        for axes, column in zip(axes_row, shown[1], strict=True):
            image = axes.imshow(similar_hwhw[row, column].numpy(), vmin=least, vmax=1, cmap="viridis")
            axes.set_title(f"{row}, {column}", fontsize=6)
            axes.axis("off")
    figure.colorbar(image, ax=cells, shrink=0.6)
    figure.suptitle(position_caption(table_1PD.cpu(), grid, num_prefix_positions), fontsize=8)
    return _write(figure, path)


def position_caption(table_1PD: Tensor, grid: Grid, num_prefix_positions: int) -> str:
    """Return what is drawn, and that a table of sines and cosines, as MAE's and MoCo v3's, was never learned."""
    what = "cosine of the position at (row, column) with every other"
    width = table_1PD.shape[2]
    # 1e-4: a table that another program made, or kept in 16 bits, differs by rounding; a trained one by far more
    if width % 4 == 0 and torch.allclose(table_1PD, sincos_table(width, grid, num_prefix_positions), atol=1e-4):
        return f"{what}\nthe fixed table of sines and cosines, which training does not change: nothing here is learned"
    return what


def _weights(
    attention: Attention, x_BTD: Tensor, turn_2TF: Tensor | None, grid: Grid, shared: TableBias | None
) -> Tensor:
    """Return the softmax of the scores, (B, heads, T, T); the model's own kernels never hold it."""
    qkv_BT3D = attention._project(x_BTD)[0]
    q, k, _ = attention._heads(qkv_BT3D if turn_2TF is None else attention._turned(qkv_BT3D, turn_2TF))
    score = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if shared is not None:
        score = score + shared(grid)
    elif attention.relative == "table":
        score = score + attention._table(grid)
    elif attention.relative == "decomposed":
        to_rows, to_columns = decomposed_bias(q, attention.rel_pos_h, attention.rel_pos_w, grid)
        score = score + (to_rows[..., :, None] + to_columns[..., None, :]).flatten(-2)
    return score.softmax(dim=-1)


def _write(figure: Figure, path: Path) -> Path:
    write_figure(figure, path, dpi=DPI)
    return path
