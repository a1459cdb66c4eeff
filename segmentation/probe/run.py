"""Read-outs of the patches of a frozen ViT on any segmentation data set: k nearest neighbours and linear classifiers.

Each leaves a record as a training run does, tasks `knn_segmentation` and `linear_segmentation`. What leads its metrics
is stated beforehand: the form of the features that the configuration names, with 30 neighbours, or with the C that
held-out training images choose. All other combinations stand beside it, and so does what is known without any feature:
the most frequent class, the mean label map, and position alone.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import read_initial, start_from
from engine.device import make_fabric
from engine.drawing import drawn
from engine.images.reading import none_readable
from engine.records.probed import Probed, now
from engine.records.record import PICTURES, RunRecord
from engine.records.results_file import ImageResult
from metrics.miou import add_up, scores
from segmentation.data.labels import decode, read_label_map
from segmentation.data.layout import SegmentationFolder, open_folder, with_part
from segmentation.evaluation.counts import Rows, confusion, write_per_class
from segmentation.evaluation.inference import best_class
from segmentation.evaluation.resized import resized
from segmentation.probe.config import KINDS, LEADING_NEIGHBOURS, NEIGHBOURS, DenseProbeConfig
from segmentation.probe.memory import Memory, Statistics, angles, draw_memory, rows_and_columns, statistics
from segmentation.probe.patches import Grid, PatchFeatures, patch_features
from segmentation.probe.pictures import NAME, basis_of, draw_patches
from segmentation.probe.readout import CS, PatchScores, Regression, occurring, regression, retrieve

KNN, LINEAR = "knn_segmentation", "linear_segmentation"
CLASSES_AT_ONCE = 16  # whose scores are enlarged at once
BASIS_PATCHES = 10_000  # that the colours of pictures are from
Say = Callable[[str], None]
ReadOut = Callable[[Tensor], Mapping[str, PatchScores]]
"""From the features of an image's patches, (P, D) float32 and raw, to scores by the name of the outcome."""


@dataclass
class Tally:
    """The confusion counts of one outcome."""

    total_CC: np.ndarray
    results: list[ImageResult] = field(default_factory=list)
    """Of single images."""

    def add(self, image_id: str, rows: Rows) -> None:
        """Count an image."""
        self.total_CC += add_up([rows], len(self.total_CC))
        self.results.append(ImageResult(image_id, {"confusion": rows}))


def run_dense_probes(
    config: DenseProbeConfig, *, data: Path, init: InitialWeights | None, out: Path, cache: Path, say: Say
) -> list[RunRecord]:
    """Write OUT/knn_segmentation/ and OUT/linear_segmentation/ (record.json, results.jsonl, per_class.csv) and return
    the records.

    Raises ValueError where `out` holds probes already, and as reading the weights and the data does.
    """
    for name in (KNN, LINEAR):
        if (out / name).exists():
            raise ValueError(f"{out / name}: holds a probe already; give another --out.")
    began, started = time.monotonic(), now()
    torch.manual_seed(config.seed)
    folder = with_part(open_folder(data, config.layout, train=config.train_split, val=config.val_split), config)
    for split in (folder.train, folder.val):
        if (nothing := none_readable([pair.image for pair in split.pairs], split.name)) is not None:
            raise ValueError(f"{data}: {nothing}")
    checkpoint = read_initial(init)
    vit = vit_for(config.backbone, checkpoint)
    report, normalisation = start_from(vit, init, checkpoint)
    vit.eval().requires_grad_(False)
    for line in report.lines() or ["RANDOM (no --init was given)"]:
        say(f"weights: {line}")
    fabric = make_fabric("auto", device=config.device)
    vit.to(fabric.device)
    # one file holds several networks (student, teacher), and what is declared says which and how it is read
    weights = f"random {config.seed}" if init is None else f"{report.sha256} {init.options()}"
    features: list[PatchFeatures] = []
    for split in (folder.train, folder.val):
        at, found = patch_features(
            cache, vit, config, split, folder.classes, weights=weights, normalisation=normalisation, fabric=fabric
        )
        if not len(found.index_N):
            raise ValueError(f"{data}: no image of split {split.name} can be read; the first: {found.unreadable[0]}")
        gigabytes = sum(path.stat().st_size for path in at.glob("*.npy")) / 1e9
        say(f"features of {len(found.index_N)} images of split {split.name}: {at} ({gigabytes:.2f} GB)")
        features.append(found)
    train, val = features
    memory = draw_memory(train, config.memory, seed=config.seed)
    say(memory.note)
    known = statistics(train).to(fabric.device)
    readouts = Readouts(config, memory, known, train.grid, fabric.device)
    linear, fits = readouts.linear()
    for name, fit in fits.items():
        mious = " ".join(f"{miou:>7.2f}" for miou in fit.held_out_miou)
        say(f"linear, {name}: mIoU of held-out patches for C of 1e-6 to 10: {mious}; C {CS[fit.chosen]:g} taken")
    tallies = {
        task: tally(val, folder, readout, {**readouts.without_features(), **constant}, device=fabric.device)
        for task, readout, constant in (
            (KNN, readouts.neighbours(), readouts.neighbours_by_position()),
            (LINEAR, linear, {"position": fits["position"].logits(rows_and_columns(train.grid).to(fabric.device))}),
        )
    }
    base = Probed(
        config=config,
        data=data,
        init=init,
        report=report,
        train_split=folder.train.name,
        val_split=folder.val.name,
        train_images=len(folder.train.pairs),
        val_images=len(folder.val.pairs),
        classes=folder.classes.names,
        notes=(*folder.notes, memory.note, *([NO_NORM] if isinstance(vit.norm, nn.Identity) else [])),
        unreadable=(*train.unreadable, *val.unreadable),
        vit=vit,
        started=started,
        began=began,
    )
    leading = {KNN: f"{config.features}_k{LEADING_NEIGHBOURS}", LINEAR: config.features}
    position = {KNN: f"position_k{LEADING_NEIGHBOURS}", LINEAR: "position"}
    return [
        write(
            base,
            out / task,
            task,
            tallies[task],
            leading=leading[task],
            position=position[task],
            draw=partial(readouts.draw, out / task / PICTURES / NAME, val, folder),
            say=say,
        )
        for task in tallies
    ]


NO_NORM = "the weights have no final norm: the residual stream is read as it is"


def vit_for(architecture: ViTConfig, checkpoint: Checkpoint | None) -> ViT:
    """Return the ViT with the class token, which is not read, and the final norm where the weights have them."""
    if checkpoint is None:
        a = architecture
        return ViT(a, class_token=not (a.window_size or a.relative_position == "decomposed"))
    return ViT(
        architecture,
        class_token="cls_token" in checkpoint.state,
        final_norm="norm.weight" in checkpoint.state,
    )


@dataclass(frozen=True)
class Readouts:
    """All that is read out of one memory."""

    config: DenseProbeConfig
    memory: Memory
    known: Statistics
    grid: Grid
    device: torch.device

    def neighbours(self) -> ReadOut:
        """Return retrieval from each form of the features."""
        raw_MD, position_M = self.memory.feature_MD.to(self.device), self._positions()
        stored = {kind: F.normalize(self.known.form(raw_MD, position_M, kind), dim=1) for kind in KINDS}
        share_MC = self.memory.share_MC.to(self.device)
        every_P = torch.arange(self.grid[0] * self.grid[1], device=self.device)

        def read(feature_PD: Tensor) -> dict[str, PatchScores]:
            return {
                f"{kind}_k{k}": occurring(share_PC)
                for kind in KINDS
                for k, share_PC in self._retrieved(
                    stored[kind], share_MC, self.known.form(feature_PD, every_P, kind)
                ).items()
            }

        return read

    def neighbours_by_position(self) -> dict[str, PatchScores]:
        """Return retrieval by row and column alone: the same for every image."""
        angle_PX = angles(self.grid).to(self.device)
        found = self._retrieved(angle_PX[self._positions()], self.memory.share_MC.to(self.device), angle_PX)
        return {f"position_k{k}": occurring(share_PC) for k, share_PC in found.items()}

    def linear(self) -> tuple[ReadOut, dict[str, Regression]]:
        """Return the classifiers of each form of the features, and of `position`, as a read-out and one by one."""
        raw_MD, position_M = self.memory.feature_MD.to(self.device), self._positions()
        every_P = torch.arange(self.grid[0] * self.grid[1], device=self.device)
        fits: dict[str, Regression] = {
            kind: self._regression(self.known.form(raw_MD, position_M, kind)) for kind in KINDS
        }

        def read(feature_PD: Tensor) -> dict[str, PatchScores]:
            return {kind: fits[kind].logits(self.known.form(feature_PD, every_P, kind)) for kind in KINDS}

        place_MX = rows_and_columns(self.grid).to(self.device)[position_M]
        return read, {**fits, "position": self._regression(place_MX)}

    def without_features(self) -> dict[str, PatchScores]:
        """Return the most frequent class of all training pixels, and the mean label map."""
        frequent_1 = self.known.pixels_C.argmax()[None]
        prior = PatchScores(self.known.share_PC.new_ones(self.grid[0] * self.grid[1], 1), frequent_1)
        return {"class_prior": prior, "mean_label_map": occurring(self.known.share_PC)}

    def draw(self, path: Path, val: PatchFeatures, folder: SegmentationFolder) -> Path:
        """Write pictures of the form that leads, in colours from patches of the memory."""
        kind, every_P = self.config.features, torch.arange(self.grid[0] * self.grid[1], device=self.device)
        raw_MD = self.memory.feature_MD[:BASIS_PATCHES].to(self.device)
        basis = basis_of(self.known.form(raw_MD, self._positions()[:BASIS_PATCHES], kind))
        return draw_patches(
            path, val, folder, basis, lambda feature_PD: self.known.form(feature_PD.to(self.device), every_P, kind)
        )

    def _positions(self) -> Tensor:
        return torch.from_numpy(self.memory.position_M).to(self.device)

    def _retrieved(self, memory_MD: Tensor, share_MC: Tensor, query_QD: Tensor) -> dict[int, Tensor]:
        return retrieve(memory_MD, share_MC, query_QD, neighbours=NEIGHBOURS, temperature=self.config.temperature)

    def _regression(self, feature_MD: Tensor) -> Regression:
        memory = self.memory
        return regression(
            feature_MD,
            memory.share_MC.to(self.device),
            memory.labelled_M,
            memory.image_M,
            iterations=self.config.linear_iterations,
            seed=self.config.seed,
        )


def predict_pixels(patches: PatchScores, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return the class of every pixel, (H, W) uint8: scores are enlarged (bilinear), and the highest is taken."""
    coarse_1Khw = patches.score_QK.float().T.reshape(1, -1, *grid)
    parts = (resized(part, size) for part in coarse_1Khw.split(CLASSES_AT_ONCE, dim=1))
    return patches.class_K.to(torch.uint8)[best_class(parts)[0].long()]


def tally(
    val: PatchFeatures,
    folder: SegmentationFolder,
    readout: ReadOut,
    constant: Mapping[str, PatchScores],
    *,
    device: torch.device,
) -> dict[str, Tally]:
    """Return the confusion counts of every outcome over the validation images at the size of their label maps."""
    classes = len(folder.classes.names)
    tallies: dict[str, Tally] = {}
    for number, index in enumerate(val.index_N.tolist()):
        pair = folder.val.pairs[index]
        label_HW = decode(read_label_map(pair.labels), folder.val.label_mapping, pair.labels)
        feature_PD = torch.from_numpy(np.asarray(val.feature_NPD[number], dtype=np.float32)).to(device)
        for name, patches in {**readout(feature_PD), **constant}.items():
            predicted_HW = predict_pixels(patches, val.grid, label_HW.shape).cpu().numpy()
            made = tallies.setdefault(name, Tally(np.zeros((classes, classes), dtype=np.int64)))
            made.add(pair.image_id, confusion(label_HW, predicted_HW, classes))
    return tallies


def write(
    base: Probed,
    out: Path,
    task: str,
    tallies: Mapping[str, Tally],
    *,
    leading: str,
    position: str,
    draw: Callable[[], Path],
    say: Say,
) -> RunRecord:
    """Write the files of a read-out and return its record; `leading` names the outcome that `miou` is."""
    if not tallies[leading].total_CC.any():
        raise ValueError(f"{base.data}: no pixel of the {base.val_images} validation images that are read is labelled.")
    mious = {name: scores(each.total_CC)["miou"] for name, each in tallies.items()}
    say(f"{task}, mIoU in percent")
    for name, miou in mious.items():
        say(f"  {name:<24} {miou:>6.2f}" + ("  leads" if name == leading else ""))
    notes = []
    if mious[leading] <= mious[position]:
        notes = [
            f"{leading} has a mIoU of {mious[leading]:.2f}, position alone {mious[position]:.2f}: "
            "on these images position carries the result"
        ]
        say(f"note: {notes[0]}")
    write_per_class(out / "per_class.csv", tallies[leading].total_CC, [*base.classes])
    warnings: list[str] = []
    pictures = drawn(NAME, lambda: [draw()], warnings.append)
    metrics = {**scores(tallies[leading].total_CC), **mious}
    return base.write(
        out,
        task,
        primary="miou",
        leading=leading,
        metrics=metrics,
        results=tallies[leading].results,
        notes=notes,
        pictures=pictures,
        warnings=warnings,
    )
