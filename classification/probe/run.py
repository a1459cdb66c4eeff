"""Probes of a frozen ViT on features that are extracted once: k nearest neighbours and linear classifiers by depth.

Each probe leaves a record as a training run does, tasks `knn` and `linear_features`. What leads its metrics is stated
beforehand: the last block, the pooling of the configuration, 20 neighbours (DINO) or the learning rate chosen on
held-out training images. Every other combination stands beside it, and none is chosen by the validation images.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from classification.config import Pooling, ProbeConfig
from classification.data import LabelledImages, eval_transform, open_split, same_classes, shared_note
from classification.probe.features import Features, cache_key, cached_features, describe
from classification.probe.knn import NEIGHBOURS, nearest_classes
from classification.probe.linear_sweep import Sweep, sweep
from classification.with_head import top_scores
from engine.channels import channel_notes, normalisation_for
from engine.device import make_fabric
from engine.images.reading import none_readable
from engine.records.probed import Probed, now
from engine.records.record import RunRecord
from engine.records.results_file import ImageResult

LEADING_NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One probe of one kind of features."""

    name: str
    """`depth06_class_k20`, `depth06_class`."""
    top1: float
    results: tuple[ImageResult, ...]


def run_probes(
    config: ProbeConfig, *, data: Path, init: InitialWeights | None, out: Path, cache: Path, say: Callable[[str], None]
) -> list[RunRecord]:
    """Write OUT/knn/ and OUT/linear_features/ (record.json, results.jsonl) and return the records.

    Raises ValueError where `out` holds probes already, and as reading the weights and the data does.
    """
    for name in ("knn", "linear_features"):
        if (out / name).exists():
            raise ValueError(f"{out / name}: holds a probe already; give another --out.")
    began, started = time.monotonic(), now()
    torch.manual_seed(config.seed)
    vit = ViT(config.backbone, class_token=config.class_token)
    report, found = start_from(vit, init)
    vit.eval().requires_grad_(False)
    channels = config.backbone.in_chans
    normalisation = normalisation_for(config, found, channels)
    train, train_notes = open_split(data, "train", channels)
    val, val_notes = open_split(data, config.val_split, channels)
    train_notes.insert(0, same_classes(train, val))
    val_notes += shared_note(train, val)
    for folder in (train, val):
        paths = [path for path, _ in folder.samples]
        if (nothing := none_readable(paths, Path(folder.root).name, channels)) is not None:
            raise ValueError(f"{data}: {nothing}")
    for line in report.lines() or ["RANDOM (no --init was given)"]:
        say(f"weights: {line}")
    fabric = make_fabric("auto", device=config.device)
    vit.to(fabric.device)
    transform = eval_transform(config.backbone.image_size, config.crop_pct, normalisation)
    text = describe(config.backbone, config.crop_pct, normalisation)
    # one file holds several networks (student, teacher), and what is declared says which and how it is read
    weights = f"random {config.seed}" if init is None else f"{report.sha256} {init.options()}"
    splits = []
    for folder in (train, val):
        images = LabelledImages(folder, transform)
        key = cache_key(weights, images, text, str(fabric._precision.precision))
        say(f"features of {len(images)} images of {folder.root}: {cache / key}")
        features = cached_features(
            cache / key, vit, images, fabric=fabric, batch_size=config.batch_size, workers=config.workers
        )
        splits.append(features)
    base = Probed(
        config=config,
        data=data,
        init=init,
        report=report,
        train_split="train",
        val_split=config.val_split,
        train_images=len(train.samples),
        val_images=len(val.samples),
        classes=train.classes,
        notes=(*channel_notes(config, found, channels), *train_notes, *val_notes),
        unreadable=tuple(line for split in splits for line in split.unreadable),
        vit=vit,
        started=started,
        began=began,
    )
    device = fabric.device
    neighbours = probe_neighbours(*splits, classes=len(train.classes), device=device, say=say)
    linear = probe_linear(*splits, classes=len(train.classes), config=config, device=device, say=say)
    last = f"depth{config.backbone.depth:02d}_{config.pooling}"
    return [
        _write(base, out, "knn", neighbours, leading=f"{last}_k{LEADING_NEIGHBOURS}"),
        _write(base, out, "linear_features", linear, leading=last),
    ]


def probe_neighbours(
    train: Features, val: Features, *, classes: int, device: torch.device, say: Callable[[str], None]
) -> list[Outcome]:
    """Return an outcome per depth, pooling and number of neighbours, and say them as a table."""
    say("k nearest neighbours, top-1 in percent")
    say(f"{'depth':>5} {'pooling':>8} " + " ".join(f"{f'k={k}':>7}" for k in NEIGHBOURS))
    outcomes: list[Outcome] = []
    label_N = torch.from_numpy(train.label_N).to(device)
    for depth, pooling in _kinds(train):
        bank_ND, query_VD = (features.of(depth, pooling).to(device) for features in (train, val))
        found = nearest_classes(bank_ND, label_N, query_VD, classes=classes)
        row = [_outcome(f"depth{depth:02d}_{pooling}_k{k}", val, predictions) for k, predictions in found.items()]
        say(f"{depth:>5} {pooling:>8} " + " ".join(f"{outcome.top1:>7.2f}" for outcome in row))
        outcomes += row
    return outcomes


def probe_linear(
    train: Features,
    val: Features,
    *,
    classes: int,
    config: ProbeConfig,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Return an outcome per depth and pooling by the learning rate that held-out training images choose; say every
    learning rate's."""
    outcomes: list[Outcome] = []
    for depth, pooling in _kinds(train):
        found = sweep(
            train.of(depth, pooling).to(device),
            torch.from_numpy(train.label_N).to(device),
            val.of(depth, pooling).to(device),
            torch.from_numpy(val.label_N).to(device),
            classes=classes,
            epochs=config.linear_epochs,
            seed=config.seed,
        )
        if not outcomes:
            say("linear classifiers, top-1 in percent by learning rate at a batch of 256: held-out / validation")
            say(f"{'depth':>5} {'pooling':>8} " + " ".join(f"{lr:>13g}" for lr in found.lrs) + "  chosen")
        say(f"{depth:>5} {pooling:>8} " + _sweep_row(found))
        outcomes.append(_outcome(f"depth{depth:02d}_{pooling}", val, found.predictions_VK))
    return outcomes


def _sweep_row(found: Sweep) -> str:
    pairs = zip(found.held_out_top1, found.top1, strict=True)
    return " ".join(f"{held:>6.2f}/{top1:>6.2f}" for held, top1 in pairs) + f"  {found.lrs[found.chosen]:g}"


def _kinds(features: Features) -> list[tuple[int, Pooling]]:
    return [
        (depth, pooling) for depth in range(1, features.features_PEND.shape[1] + 1) for pooling in features.poolings
    ]


def _outcome(name: str, val: Features, predictions_VK: Tensor) -> Outcome:
    rows = zip(val.image_ids, val.label_N.tolist(), predictions_VK.tolist(), strict=True)
    results = tuple(ImageResult(image_id, {"label": label, "top5": top}) for image_id, label, top in rows)
    return Outcome(name=name, top1=top_scores(list(results))["top1"], results=results)


def _write(base: Probed, out: Path, task: str, outcomes: Sequence[Outcome], *, leading: str) -> RunRecord:
    """Write a probe's files and return its record; `leading` names the outcome that `top1` is."""
    leader = next(outcome for outcome in outcomes if outcome.name == leading)
    metrics = {**top_scores(list(leader.results)), **{outcome.name: outcome.top1 for outcome in outcomes}}
    return base.write(out / task, task, primary="top1", leading=leading, metrics=metrics, results=leader.results)
