"""Masks from examples, put together: detection's annotations, segmentation's retrieval and canvases, MAE's decoder.

None of these folders knows another.
"""

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from backbones.normalise import Normalise
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import read_initial, start_from
from backbones.weights.loader import LoadReport
from detection.data.coco import CocoSplit, annotation_file, check_same_categories, images_of_both, read_coco
from detection.data.objects import SingleObject, single_objects
from engine.device import make_fabric
from engine.records.probed import Probed, now
from engine.records.record import RunRecord
from pretraining.gallery import Decoder
from pretraining.mae.painting import Painter, open_painter, random_painter
from segmentation.in_context.answers import RANDOM, Inpainting, Method, Retrieval
from segmentation.in_context.canvas import hole
from segmentation.in_context.canvases import write_canvases
from segmentation.in_context.config import EpisodeConfig, InContextConfig
from segmentation.in_context.episodes import Drawn, draw_episodes
from segmentation.in_context.folders import Answered, answer_folder
from segmentation.in_context.run import TASK, Say, run_queries, write
from segmentation.probe.run import NO_NORM, vit_for


class Opened(NamedTuple):
    """A way to answer, with what a record says of its weights."""

    method: Method
    vit: ViT
    report: LoadReport
    notes: tuple[str, ...]


class Splits(NamedTuple):
    """Two checked annotation files."""

    train: CocoSplit
    val: CocoSplit


def open_method(config: InContextConfig, init: InitialWeights | None, *, beside: bool) -> Opened:
    """Return the method that the configuration names, with these weights, random ones without; `beside` adds random
    weights where others were declared.

    Raises what reading raises, and ValueError for weights that the method has no use for.
    """
    torch.manual_seed(config.seed)
    device = make_fabric("32-true", device=config.device).device
    beside = beside and init is not None
    if config.method == "inpainting":
        decoder = Decoder(heads=config.decoder_heads, target=config.target)
        painter = random_painter(config.backbone) if init is None else open_painter(init, decoder, config.backbone)
        painters: dict[str, Painter] = {config.leading: painter.to(device)}
        if beside:
            painters[RANDOM] = painter.untrained().to(device)
        made = Inpainting(config=config, painters=painters)
        return Opened(made, painter.encoder, painter.report, painter.notes)
    checkpoint = read_initial(init)
    vit = vit_for(config.backbone, checkpoint)
    report, normalisation = start_from(vit, init, checkpoint)
    normalise = Normalise(normalisation).to(device)
    vits = {"": (vit, normalise)}
    if beside:
        vits[RANDOM] = (vit_for(config.backbone, checkpoint), normalise)
    for each, _ in vits.values():
        each.eval().requires_grad_(False).to(device)
    notes = (NO_NORM,) if isinstance(vit.norm, nn.Identity) else ()
    return Opened(Retrieval(config=config, vits=vits, device=device), vit, report, notes)


def open_both(config: EpisodeConfig, data: Path) -> Splits:
    """Return the annotations of the training and the validation images. Raises what reading raises, and ValueError for
    other categories."""
    train, val = (
        read_coco(annotation_file(data, split, file), data=data, split=split)
        for split, file in ((config.train_split, config.train_json), (config.val_split, config.val_json))
    )
    check_same_categories(train, val)
    return Splits(train, val)


def objects_of(config: EpisodeConfig, split: CocoSplit) -> dict[int, list[SingleObject]]:
    """Return by class what can be an example or a query."""
    return single_objects(split, boxes=config.prompt == "box", least_area=config.least_area, most_area=config.most_area)


def score_queries(
    config: InContextConfig, *, data: Path, init: InitialWeights | None, out: Path, say: Say
) -> RunRecord:
    """Write OUT/in_context (record.json, results.jsonl, per_class.csv, a picture) and return its record.

    Raises ValueError where `out` holds one already, and as reading the weights and the data does.
    """
    if (out / TASK).exists():
        raise ValueError(f"{out / TASK}: holds a record already; give another --out.")
    began, started = time.monotonic(), now()
    splits = open_both(config, data)
    pools, asked = (objects_of(config, split) for split in splits)
    names = [category.name for category in splits.train.categories]
    episodes = draw_episodes(pools, asked, names, shots=config.shots, most=config.queries_per_class, seed=config.seed)
    opened = open_method(config, init, beside=True)
    notes = (*splits.train.notes, *splits.val.notes, *images_of_both(*splits), *opened.notes, *episodes.notes)
    for line in [*(f"weights: {line}" for line in opened.report.lines() or [NOTHING]), *notes]:
        say(line)
    made = run_queries(config, episodes, opened.method, say)
    base = Probed(
        config=config,
        data=data,
        init=init,
        report=opened.report,
        train_split=splits.train.name,
        val_split=splits.val.name,
        train_images=len(splits.train.store),
        val_images=len(splits.val.store),
        classes=names,
        notes=notes,
        unreadable=tuple(made.unreadable),
        vit=opened.vit,
        started=started,
        began=began,
        precision="32-true",
    )
    return write(base, config, made, out / TASK, say)


NOTHING = "RANDOM (no --init was given)"


def answer_queries(
    config: InContextConfig, *, examples: Path, queries: Path, init: InitialWeights | None, out: Path, say: Say
) -> Answered:
    """Write masks and boxes of the images in a folder, from the examples in another.

    Raises as reading the weights and `answer_folder` does.
    """
    opened = open_method(config, init, beside=False)
    for line in [*(f"weights: {line}" for line in opened.report.lines() or [NOTHING]), *opened.notes]:
        say(line)
    return answer_folder(config, opened.method, examples=examples, queries=queries, out=out)


def make_canvases(config: EpisodeConfig, *, data: Path, out: Path, say: Say) -> list[Path]:
    """Write OUT/train and OUT/val, canvases with answers, and return these folders.

    Queries are training and validation images, and examples are training images of both: no validation image is in a
    training canvas. Raises FileExistsError where `out` holds something, ValueError where no image of a split has a
    canvas, and as reading the data does.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: holds something already; give another --out.")
    splits = open_both(config, data)
    names = [category.name for category in splits.train.categories]
    hole(config.backbone.grid)
    pools = objects_of(config, splits.train)
    drawn: dict[str, Drawn] = {}
    for name, split in splits._asdict().items():
        try:
            drawn[name] = draw_episodes(
                pools,
                objects_of(config, split),
                names,
                shots=1,
                most=config.queries_per_class,
                seed=config.seed,
            )
        except ValueError as error:
            raise ValueError(f"{split.annotations}: {error} An image is no example of itself.") from error
    folders = []
    for name, episodes in drawn.items():
        count, unreadable = write_canvases(out / name, episodes, config.backbone.image_size)
        for line in (*(f"{name}: {note}" for note in episodes.notes), *(f"left out: {line}" for line in unreadable)):
            say(line)
        if not count:
            raise ValueError(f"{data}: none of the images of split {name} can be read; the first: {unreadable[0]}")
        say(f"{name}: {count} canvases")
        folders.append(out / name)
    return folders
