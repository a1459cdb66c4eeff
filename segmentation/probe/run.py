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
from segmentation.data.layout import SegmentationFolder, Split, open_folder, with_part
from segmentation.evaluation.counts import Rows, confusion, write_per_class
from segmentation.evaluation.inference import best_class
from segmentation.evaluation.resized import resized
from segmentation.probe.config import LEADING_NEIGHBOURS, DenseProbeConfig
from segmentation.probe.crops import CropBoth, crop_of, described
from segmentation.probe.memory import draw_memory, rows_and_columns, statistics
from segmentation.probe.outcomes import ReadOut, Readouts
from segmentation.probe.patches import Grid, PatchFeatures, patch_features
from segmentation.probe.pictures import NAME
from segmentation.probe.readout import CS, PatchScores
from segmentation.probe.search import check_search

KNN, LINEAR = "knn_segmentation", "linear_segmentation"
CLASSES_AT_ONCE = 16  # whose scores are enlarged at once
PATCHES_AT_ONCE = 8192  # of several images that are read out at once
Say = Callable[[str], None]


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
    check_search(config.search)
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
    extracted = partial(patch_features, cache, vit, config, weights=weights, normalisation=normalisation, fabric=fabric)

    def features_of(split: Split, crop: CropBoth | None = None) -> PatchFeatures:
        at, found = extracted(split, folder.classes, crop=crop)
        if not len(found.index_N):
            raise ValueError(f"{data}: no image of split {split.name} can be read; the first: {found.unreadable[0]}")
        gigabytes = sum(path.stat().st_size for path in at.glob("*.npy")) / 1e9
        what = "images" if crop is None else "crops of images"
        say(f"features of {len(found.index_N)} {what} of split {split.name}: {at} ({gigabytes:.2f} GB)")
        return found

    train, val = features_of(folder.train), features_of(folder.val)
    augmented = features_of(folder.train, crop_of(config)) if config.augmentation_epochs else train
    memory = draw_memory(augmented, config.memory, seed=config.seed)
    whole = memory if augmented is train else draw_memory(train, config.memory, seed=config.seed)
    drawn_from = [described(config)] if config.augmentation_epochs else []
    for note in (*drawn_from, memory.note):
        say(note)
    known = statistics(train).to(fabric.device)
    readouts = Readouts(config, memory, whole, known, train.grid, fabric.device)
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
        notes=(*folder.notes, *drawn_from, memory.note, *([NO_NORM] if isinstance(vit.norm, nn.Identity) else [])),
        unreadable=tuple(dict.fromkeys((*train.unreadable, *augmented.unreadable, *val.unreadable))),
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
    at_once = max(1, PATCHES_AT_ONCE // val.labelled_NP.shape[1])
    for start in range(0, len(val.index_N), at_once):
        part = slice(start, start + at_once)
        feature_BPD = torch.from_numpy(np.asarray(val.feature_NPD[part], dtype=np.float32)).to(device)
        for index, outcomes in zip(val.index_N[part].tolist(), readout(feature_BPD), strict=True):
            pair = folder.val.pairs[index]
            label_HW = decode(read_label_map(pair.labels), folder.val.label_mapping, pair.labels)
            for name, patches in {**outcomes, **constant}.items():
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
