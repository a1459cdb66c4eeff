"""Answers to queries, by retrieval from the examples' patches, or by painting a canvas.

Axis letters: E examples, P patches of an image (row-major), M patches of a query's examples, D width, h x w of a map,
B images or canvases, C channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.normalise import Normalise
from backbones.vit import ViT
from segmentation.in_context.canvas import canvas, cell_size, hole, read_answer
from segmentation.in_context.config import KINDS, InContextConfig
from segmentation.in_context.images import Example, Size, patch_shares, stacked
from segmentation.probe.config import NEIGHBOURS
from segmentation.probe.memory import EPS, angles
from segmentation.probe.patches import last_tokens
from segmentation.probe.readout import retrieve
from segmentation.probe.search import MEMORY_AT_ONCE, nearest

RANDOM = "random_weights"


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A query with the examples that it is shown."""

    image: Image.Image
    """At the size that the method takes."""
    shown: tuple[int, ...]
    """Places among the examples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """Shares of foreground, and where they are from."""

    share_hw: Mapping[str, Tensor]
    """From 0 to 1, by outcome."""
    origin_P2: np.ndarray | None = None
    """Retrieval: the nearest patch of each patch, by place among the shown examples and position."""
    canvases: tuple[np.ndarray, np.ndarray] | None = None
    """Inpainting: the first example's canvas, as it is asked and as it is painted, uint8."""


class Method(Protocol):
    """A way to answer."""

    @property
    def size(self) -> Size:
        """Of the images that it takes."""

    def answers(self, examples: Sequence[Example], asked: Sequence[Asked]) -> Iterator[Answer]:
        """Yield the answer to each query."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Each patch takes its foreground share from the nearest patches of the examples (segmentation/probe)."""

    config: InContextConfig
    vits: Mapping[str, tuple[ViT, Normalise]]
    """By what its outcomes begin with: nothing, and `random_weights` where that stands beside."""
    device: torch.device

    @property
    def size(self) -> Size:
        """Of images."""
        return self.config.backbone.image_size

    def answers(self, examples: Sequence[Example], asked: Sequence[Asked]) -> Iterator[Answer]:
        """Yield the answer to each query; the examples are those of all of them, whose patches standardise."""
        shares = [patch_shares(example.mask_HW, self.config.backbone.grid) for example in examples]
        stored = {name: self._features([example.image for example in examples], name) for name in self.vits}
        found = {name: self._features([each.image for each in asked], name) for name in self.vits}
        for number, each in enumerate(asked):
            usable_M = torch.cat([shares[k][1] for k in each.shown]).to(self.device)
            share_M1 = torch.cat([shares[k][0] for k in each.shown]).to(self.device)[usable_M]
            outcomes: dict[str, Tensor] = {}
            origin_P2 = None
            for name, feature_EPD in stored.items():
                mean_D, std_D = _statistics(feature_EPD)
                for kind in KINDS if name != RANDOM else (self.config.features,):
                    centre, scale = (mean_D, std_D) if kind == "standardised" else (0, 1)
                    memory_MD = ((feature_EPD[[*each.shown]] - centre) / scale).flatten(0, 1)[usable_M]
                    query_PD = (found[name][number] - centre) / scale
                    pieces = F.normalize(memory_MD, dim=1).split(MEMORY_AT_ONCE)
                    got = retrieve(
                        pieces, share_M1, query_PD, neighbours=NEIGHBOURS, temperature=self.config.temperature
                    )
                    if name == RANDOM:
                        outcomes[RANDOM] = self._map(got[max(NEIGHBOURS)])
                        continue
                    outcomes |= {f"{kind}_k{k}": self._map(share_P1) for k, share_P1 in got.items()}
                    if kind == self.config.features:
                        nearest_P = nearest(pieces, query_PD, 1)[1][:, 0]
                        place_P = usable_M.nonzero()[:, 0][nearest_P].cpu().numpy()
                        origin_P2 = np.stack(np.divmod(place_P, feature_EPD.shape[1]), axis=1)
            yield Answer(share_hw=outcomes, origin_P2=origin_P2)

    def _features(self, images: Sequence[Image.Image], name: str) -> Tensor:
        """Return patch tokens of images, (E, P, blocks * D) float32."""
        vit, normalise = self.vits[name]
        parts = []
        for start in range(0, len(images), self.config.batch_size):
            pixel_BCHW = stacked(images[start : start + self.config.batch_size]).to(self.device)
            with torch.no_grad():
                parts.append(last_tokens(vit, normalise(pixel_BCHW), self.config.last_blocks))
        return torch.cat(parts)

    def _map(self, share_P1: Tensor) -> Tensor:
        return share_P1.reshape(self.config.backbone.grid)


def _statistics(feature_EPD: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std of every dimension over all patches, with the variance's offset of the dense probe."""
    flat = feature_EPD.double().flatten(0, 1)
    return flat.mean(dim=0).float(), (flat.var(dim=0, correction=0) + EPS).sqrt().float()


def by_position(masks: Sequence[np.ndarray], config: InContextConfig) -> dict[str, Tensor]:
    """Return retrieval by row and column alone from the patches of masks: what position says."""
    grid = config.backbone.grid
    angle_P4 = angles(grid)
    shares = [patch_shares(mask_HW, grid) for mask_HW in masks]
    usable_M = torch.cat([usable_P for _, usable_P in shares])
    memory_M4, share_M1 = angle_P4.repeat(len(masks), 1)[usable_M], torch.cat([share for share, _ in shares])[usable_M]
    pieces = memory_M4.split(MEMORY_AT_ONCE)
    found = retrieve(pieces, share_M1, angle_P4, neighbours=NEIGHBOURS, temperature=config.temperature)
    return {f"position_k{k}": share_P1.reshape(grid) for k, share_P1 in found.items()}


class Painter(Protocol):
    """An MAE."""

    def paint(self, image_BCHW: Tensor, hidden_hw: np.ndarray) -> np.ndarray:
        """Return images given as bytes with the hidden patches predicted, (B, H, W, C) of about 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """An MAE paints the fourth cell of a canvas for each example; the mean of these readings is the answer."""

    config: InContextConfig
    painters: Mapping[str, Painter]
    """By outcome: `inpainting`, and `random_weights` where that stands beside."""
    hidden_hw: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a canvas that has no quarter."""
        object.__setattr__(self, "hidden_hw", hole(self.config.backbone.grid))
        cell_size(self.config.backbone.image_size)

    @property
    def size(self) -> Size:
        """Of a cell."""
        return cell_size(self.config.backbone.image_size)

    def answers(self, examples: Sequence[Example], asked: Sequence[Asked]) -> Iterator[Answer]:
        """Yield the answer to each query."""
        for each in asked:
            before_BHW3 = np.stack(
                [
                    canvas(examples[k].image, examples[k].mask_HW, each.image, self.config.backbone.image_size)
                    for k in each.shown
                ]
            )
            image_BCHW = torch.from_numpy(before_BHW3).permute(0, 3, 1, 2)
            outcomes, shown = {}, before_BHW3[0]
            for name, painter in self.painters.items():
                parts = image_BCHW.split(self.config.batch_size)
                painted_BHW3 = np.concatenate([painter.paint(part, self.hidden_hw) for part in parts])
                outcomes[name] = torch.from_numpy(np.mean([read_answer(one) for one in painted_BHW3], axis=0))
                if name != RANDOM:
                    shown = painted_BHW3[0].clip(0, 255).round().astype(np.uint8)
            yield Answer(share_hw=outcomes, canvases=(before_BHW3[0], shown))
