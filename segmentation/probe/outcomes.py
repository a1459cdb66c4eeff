"""All that is read out of one memory, by the name of the outcome.

Axis letters: B images, P patches of an image (row-major), M patches of the memory, X of a piece of it, D width,
C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segmentation.data.layout import SegmentationFolder
from segmentation.probe.config import KINDS, NEIGHBOURS, DenseProbeConfig, FeatureKind
from segmentation.probe.memory import Memory, Statistics, angles, rows_and_columns
from segmentation.probe.patches import Grid, PatchFeatures
from segmentation.probe.pictures import basis_of, draw_patches
from segmentation.probe.readout import PatchScores, Regression, occurring, regression, retrieve
from segmentation.probe.search import MEMORY_AT_ONCE, Formed

BASIS_PATCHES = 10_000  # that the colours of pictures are from
ReadOut = Callable[[Tensor], Iterable[Mapping[str, PatchScores]]]
"""From the features of the patches of some images, (B, P, D) float32 and raw, to each image's scores by outcome."""


@dataclass(frozen=True)
class Readouts:
    """What features tell, and what is known without them."""

    config: DenseProbeConfig
    memory: Memory
    whole: Memory
    """Of images that are not cropped: what position alone is read from."""
    known: Statistics
    grid: Grid
    device: torch.device

    def neighbours(self) -> ReadOut:
        """Return retrieval from each form of the features."""
        raw_MD, position_M = self.memory.feature_MD.to(self.device), self._positions(self.memory)
        share_MC = self.memory.share_MC.to(self.device)

        def formed(kind: FeatureKind) -> Formed:
            return Formed(raw_MD=raw_MD, form=lambda raw_XD, place: self.known.form(raw_XD, position_M[place], kind))

        def read(feature_BPD: Tensor) -> Iterator[dict[str, PatchScores]]:
            of_all: dict[str, Tensor] = {}
            for kind in KINDS:
                found = self._retrieved(formed(kind), share_MC, self._form(feature_BPD, kind).flatten(0, 1))
                of_all |= {
                    f"{kind}_k{k}": share_QC.unflatten(0, feature_BPD.shape[:2]) for k, share_QC in found.items()
                }
            for number in range(len(feature_BPD)):
                yield {name: occurring(share_BPC[number]) for name, share_BPC in of_all.items()}

        return read

    def neighbours_by_position(self) -> dict[str, PatchScores]:
        """Return retrieval by row and column alone: the same for every image."""
        angle_PX = angles(self.grid).to(self.device)
        pieces = angle_PX[self._positions(self.whole)].split(MEMORY_AT_ONCE)
        found = self._retrieved(pieces, self.whole.share_MC.to(self.device), angle_PX)
        return {f"position_k{k}": occurring(share_PC) for k, share_PC in found.items()}

    def linear(self) -> tuple[ReadOut, dict[str, Regression]]:
        """Return the classifiers of each form, and of `position`, as a read-out and one by one."""
        part = slice(self.config.linear_memory)
        raw_MD, position_M = self.memory.feature_MD[part], self._positions(self.memory)[part]
        fits: dict[str, Regression] = {
            kind: self._regression(self.memory, self.known.form(raw_MD.to(self.device).float(), position_M, kind))
            for kind in KINDS
        }

        def read(feature_BPD: Tensor) -> Iterator[dict[str, PatchScores]]:
            for feature_PD in feature_BPD:
                yield {kind: fits[kind].logits(self._form(feature_PD, kind)) for kind in KINDS}

        place_MX = rows_and_columns(self.grid).to(self.device)[self._positions(self.whole)[part]]
        return read, {**fits, "position": self._regression(self.whole, place_MX)}

    def without_features(self) -> dict[str, PatchScores]:
        """Return the most frequent class of all training pixels, and the mean label map."""
        frequent_1 = self.known.pixels_C.argmax()[None]
        prior = PatchScores(self.known.share_PC.new_ones(self.grid[0] * self.grid[1], 1), frequent_1)
        return {"class_prior": prior, "mean_label_map": occurring(self.known.share_PC)}

    def draw(self, path: Path, val: PatchFeatures, folder: SegmentationFolder) -> Path:
        """Write pictures of the form that leads, in colours from patches of the memory."""
        kind = self.config.features
        raw_MD = self.memory.feature_MD[:BASIS_PATCHES].to(self.device).float()
        basis = basis_of(self.known.form(raw_MD, self._positions(self.memory)[:BASIS_PATCHES], kind))
        return draw_patches(path, val, folder, basis, lambda feature_PD: self._form(feature_PD.to(self.device), kind))

    def _form(self, feature_BPD: Tensor, kind: FeatureKind) -> Tensor:
        """Return features of whole images, or of one, in one of the forms."""
        every_P = torch.arange(self.grid[0] * self.grid[1], device=self.device)
        return self.known.form(feature_BPD, every_P, kind)

    def _positions(self, memory: Memory) -> Tensor:
        return torch.from_numpy(memory.position_M).to(self.device)

    def _retrieved(self, memory: Iterable[Tensor], share_MC: Tensor, query_QD: Tensor) -> dict[int, Tensor]:
        config = self.config
        return retrieve(
            memory, share_MC, query_QD, neighbours=NEIGHBOURS, temperature=config.temperature, search=config.search
        )

    def _regression(self, memory: Memory, feature_MD: Tensor) -> Regression:
        part = slice(self.config.linear_memory)
        return regression(
            feature_MD,
            memory.share_MC[part].to(self.device),
            memory.labelled_M[part],
            memory.image_M[part],
            iterations=self.config.linear_iterations,
            seed=self.config.seed,
        )
