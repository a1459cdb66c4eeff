"""Top-1 of a trained classifier on the robustness sets of ImageNet, from folders in their published layouts.

`folders` is <class>/<image>: ImageNet-A and -R (200 of the classes; arXiv 1907.07174, 2006.16241) and ImageNet-Sketch
(all; arXiv 1905.13549). `corruptions` is <corruption>/<severity>/<class>/<image>: ImageNet-C (arXiv 1903.12261). Where
a folder holds some of the model's classes, only their logits compete, as in the code of ImageNet-A and -R. ImageNet-C's
images are 224 pixels already and are cropped, not resized. MAE (table 13) gives for ViT-L: A 57.1, R 59.9, Sketch 45.3,
C 41.8. The last is mCE, which divides by the errors of AlexNet; they are not here, so plain top-1 is given instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from backbones.normalise import View
from classification.data import LabelledImages, open_classes
from classification.with_head import class_positions, top_predictions, top_scores
from engine.config import Workers
from files.naming import system_part

SEVERITIES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The score of one folder of classes."""

    top1: float
    """Percent."""
    images: int
    classes: int
    """That competed."""
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]
    """What was left out of the folder."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption at all severities."""

    name: str
    by_severity: dict[int, Scored]

    @property
    def top1(self) -> float:
        """The mean over the severities, percent."""
        return sum(scored.top1 for scored in self.by_severity.values()) / len(self.by_severity)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A classifier and the names of what it tells apart."""

    logits: Callable[[torch.Tensor], torch.Tensor]
    classes: list[str]
    view: View
    fabric: Fabric
    batch_size: int
    workers: Workers


def score_folder(root: Path, known: Known) -> Scored:
    """Return the score on `root/<class>/<image>`.

    Raises FileNotFoundError, and ValueError for unknown classes or a single one, which has nothing to compete with.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; looked for <class>/<image> in it.")
    folder, notes = open_classes(root)
    kept = class_positions(folder, known.classes)
    data = LabelledImages(folder, known.view)
    results, unreadable = top_predictions(
        known.logits, data, fabric=known.fabric, batch_size=known.batch_size, workers=known.workers, kept=kept
    )
    score = top_scores(results)["top1"]
    return Scored(top1=score, images=len(results), classes=len(kept), unreadable=tuple(unreadable), notes=tuple(notes))


def score_corruptions(root: Path, known: Known, say: Callable[[str], None]) -> list[Corruption]:
    """Return the scores on `root/<corruption>/<severity>/<class>/<image>`, by name.

    Raises FileNotFoundError that says what was looked for, and ValueError where a corruption lacks a severity that
    another one has: their mean would not be of the same images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; looked for <corruption>/<severity>/<class>/<image> in it.")
    found = {
        folder.name: [level for level in SEVERITIES if (folder / level).is_dir()]
        for folder in sorted(root.iterdir())
        if folder.is_dir() and system_part(f"{folder.name}/") is None
    }
    if not found or not all(found.values()):
        without = ", ".join(name for name, levels in found.items() if not levels) or "no folder at all"
        raise FileNotFoundError(f"{root}: looked for <corruption>/<1 to 5>/<class>/<image>; not so: {without}.")
    if len({tuple(levels) for levels in found.values()}) > 1:
        listed = "; ".join(f"{name}: {', '.join(levels)}" for name, levels in found.items())
        raise ValueError(f"{root}: its corruptions have different severities ({listed}).")
    scores = []
    for name, levels in found.items():
        by_severity = {int(level): score_folder(root / name / level, known) for level in levels}
        scores.append(Corruption(name=name, by_severity=by_severity))
        say(f"{name}: " + ", ".join(f"{level} {scored.top1:.2f}" for level, scored in by_severity.items()))
    return scores


def mean_top1(corruptions: list[Corruption]) -> float:
    """Return the mean over corruptions, percent: every corruption counts alike."""
    return sum(corruption.top1 for corruption in corruptions) / len(corruptions)
