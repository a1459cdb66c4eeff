"""Masks from examples, scored on the queries of every class, with what is known without the model beside it.

Axis letters: H x W pixels of an image, h x w of a map.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.drawing import drawn
from engine.images.file import UnreadableImageError
from engine.records.probed import Probed
from engine.records.record import PICTURES, RunRecord
from engine.records.results_file import ImageResult
from files.writing import replacing
from metrics.foreground import BOX_IOU, FOREGROUND_IOU, Query, scores
from segmentation.in_context.answers import RANDOM, Asked, Method, by_position
from segmentation.in_context.config import LEADING_NEIGHBOURS, InContextConfig
from segmentation.in_context.episodes import ClassEpisodes, Drawn, Episode, Pictured
from segmentation.in_context.images import (
    HALF,
    Example,
    Size,
    foreground,
    read_example,
    read_mask,
    read_resized,
    scored,
)
from segmentation.in_context.pictures import MOST_ROWS, NAME, Row, draw_rows

TASK = "in_context"
MEAN_OF = 200  # most masks of a class that its mean mask is made of
COPY, MEAN_MASK, OTHER, POSITION = "copied_mask", "mean_mask", "other_class", f"position_k{LEADING_NEIGHBOURS}"
Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(kw_only=True)
class Scored:
    """What was said of all queries."""

    queries: dict[str, dict[str, list[Query]]] = field(default_factory=dict)
    """By outcome and image."""
    rows: list[Row] = field(default_factory=list)
    unreadable: dict[str, None] = field(default_factory=dict)
    """Lines, in the order of their discovery."""

    def add(self, outcome: str, image: str, query: Query) -> None:
        """Keep what was said of a query."""
        self.queries.setdefault(outcome, {}).setdefault(image, []).append(query)

    def readable(self, read: Callable[[], T]) -> T | None:
        """Return what is read, None for an image that cannot be, which is counted."""
        try:
            return read()
        except UnreadableImageError as error:
            self.unreadable[str(error)] = None
            return None

    def results(self, outcome: str) -> list[ImageResult]:
        """Return the lines of a results file, one for each image."""
        return [
            ImageResult(image, {"queries": [asdict(query) for query in queries]})
            for image, queries in self.queries.get(outcome, {}).items()
        ]


def run_queries(config: InContextConfig, episodes: Drawn, method: Method, say: Say) -> Scored:
    """Return the answers to all queries of all classes.

    An image that cannot be read is left out, as an example and as a query, and counted. Raises ValueError where no
    query is left, and for masks of another size than their image.
    """
    made = Scored()
    each = -(-MOST_ROWS // len(episodes.classes))
    following = [*episodes.classes[1:], episodes.classes[0]]
    for of_class, other in zip(episodes.classes, following, strict=True):
        rows = min(each, MOST_ROWS - len(made.rows))
        count = _answer_class(config, of_class, method, made, rows=rows)
        if other is not of_class:
            _show_others(config, of_class, other, method, made)
        say(f"{of_class.name}: {count} queries, {len(of_class.pool)} images to draw examples from")
    if not made.queries:
        raise ValueError(f"none of {episodes.queries} queries could be asked; the first: {next(iter(made.unreadable))}")
    return made


@dataclass(frozen=True)
class _Questions:
    """What a method is given, and the query and the size of its image behind each question."""

    examples: list[Example]
    asked: list[Asked]
    queries: list[tuple[Pictured, Size]]


def _questions(episodes: Iterable[Episode], method: Method, made: Scored) -> _Questions:
    """Return the questions whose query and one or more of whose examples can be read."""
    read: dict[str, Example | None] = {}
    asked: list[Asked] = []
    queries: list[tuple[Pictured, Size]] = []
    for episode in episodes:
        for picture in episode.examples:
            if picture.name not in read:
                read[picture.name] = made.readable(partial(read_example, picture, method.size))
        usable = [picture.name for picture in episode.examples if read[picture.name] is not None]
        found = made.readable(partial(read_resized, episode.query.path, method.size)) if usable else None
        if found is not None:
            places = {name: k for k, name in enumerate(name for name, example in read.items() if example is not None)}
            asked.append(Asked(image=found[0], shown=tuple(places[name] for name in usable)))
            queries.append((episode.query, found[1]))
    return _Questions([example for example in read.values() if example is not None], asked, queries)


def _answer_class(config: InContextConfig, of_class: ClassEpisodes, method: Method, made: Scored, *, rows: int) -> int:
    """Answer the queries of a class, draw `rows` of them, and return how many were asked."""
    given = _questions(of_class.episodes, method, made)
    if not given.asked:
        return 0
    mean_hw = torch.from_numpy(mean_mask(of_class.pool, config.backbone.image_size, seed=config.seed)).float()
    answers = method.answers(given.examples, given.asked)
    for number, ((picture, size), one, answer) in enumerate(zip(given.queries, given.asked, answers, strict=True)):
        truth_HW = read_mask(picture, size)
        examples = tuple(given.examples[k] for k in one.shown)
        masks = [example.mask_HW for example in examples]
        without = {MEAN_MASK: mean_hw, COPY: copied(masks, size)}
        for name, share_hw in {**answer.share_hw, **without, **by_position(masks, config)}.items():
            predicted_HW = foreground(share_hw, size, HALF if name in without else config.threshold)
            query = scored(of_class.category, truth_HW, picture.box, predicted_HW)
            made.add(name, picture.name, query)
            if name == config.leading and number < rows:
                made.rows.append(
                    Row(
                        title=f"{of_class.name}: {picture.name}",
                        path=picture.path,
                        predicted_HW=predicted_HW,
                        box=query.box,
                        truth_HW=truth_HW,
                        true_box=picture.box,
                        examples=examples,
                        answer=answer,
                        grid=config.backbone.grid,
                    )
                )
    return len(given.asked)


def _show_others(
    config: InContextConfig, of_class: ClassEpisodes, other: ClassEpisodes, method: Method, made: Scored
) -> None:
    """Ask the same with examples of another class: what is said whatever the example is."""
    shown = cycle(episode.examples for episode in other.episodes)
    episodes = (Episode(query=e.query, examples=x) for e, x in zip(of_class.episodes, shown, strict=False))
    given = _questions(episodes, method, made)
    if not given.asked:
        return
    for (picture, size), answer in zip(given.queries, method.answers(given.examples, given.asked), strict=True):
        predicted_HW = foreground(answer.share_hw[config.leading], size, config.threshold)
        query = scored(of_class.category, read_mask(picture, size), picture.box, predicted_HW)
        made.add(OTHER, picture.name, query)


def copied(masks: Sequence[np.ndarray], size: Size) -> Tensor:
    """Return the mean of the examples' masks at the query's size: a copy of the mask where there is one."""
    at = [
        np.asarray(Image.fromarray(mask_HW).resize((size[1], size[0]), Image.Resampling.NEAREST)) for mask_HW in masks
    ]
    return torch.from_numpy(np.mean(at, axis=0, dtype=np.float32))


def mean_mask(pool: Sequence[Pictured], size: Size, *, seed: int) -> np.ndarray:
    """Return where objects of a class lie most often, as large as they are on average, (h, w) bool.

    From MEAN_OF images of the pool at most, drawn by the seed. The mean mask alone is above a half hardly anywhere.
    """
    chosen = np.random.default_rng([seed, 1]).permutation(len(pool))[:MEAN_OF].tolist()
    total_hw = np.zeros(size)
    for k in chosen:
        mask = Image.fromarray(pool[k].mask()).resize((size[1], size[0]), Image.Resampling.NEAREST)
        total_hw += np.asarray(mask, dtype=bool)
    area = max(1, round(float(total_hw.sum()) / len(chosen)))
    mean_hw = np.zeros(total_hw.size, dtype=bool)
    mean_hw[np.argsort(-total_hw.reshape(-1), kind="stable")[:area]] = True
    return mean_hw.reshape(size)


def write(base: Probed, config: InContextConfig, made: Scored, out: Path, say: Say) -> RunRecord:
    """Write OUT's record.json, results.jsonl, per_class.csv and picture, and return the record."""
    metrics: dict[str, float] = {}
    say("foreground IoU and box IoU, means over queries in percent")
    for name in made.queries:
        found = scores([result.values for result in made.results(name)])
        metrics |= {name: found[FOREGROUND_IOU.name], f"{name}_box": found[BOX_IOU.name]}
        leads = "  leads" if name == config.leading else ""
        say(f"  {name:<20} {found[FOREGROUND_IOU.name]:>6.2f} {found[BOX_IOU.name]:>6.2f}{leads}")
    leading = metrics[config.leading]
    results = made.results(config.leading)
    every = [query for queries in made.queries[config.leading].values() for query in queries]
    notes = [f"queries without a predicted pixel, of IoU 0: {sum(not q.predicted for q in every)} of {len(every)}"]
    notes += [
        f"{config.leading} has a foreground IoU of {leading:.2f}, {name} {metrics[name]:.2f}: it is not above {what}"
        for name, what in BESIDE.items()
        if name in metrics and leading <= metrics[name]
    ]
    for note in notes:
        say(f"note: {note}")
    write_per_class(out / "per_class.csv", every, base.classes)
    warnings: list[str] = []
    pictures = drawn(NAME, lambda: [draw_rows(out / PICTURES / NAME, made.rows)], warnings.append)
    return base.write(
        out,
        TASK,
        primary=FOREGROUND_IOU.name,
        leading=config.leading,
        metrics={FOREGROUND_IOU.name: leading, BOX_IOU.name: metrics[f"{config.leading}_box"], **metrics},
        results=results,
        notes=notes,
        pictures=pictures,
        warnings=warnings,
    )


BESIDE = {
    COPY: "a copy of the example's mask",
    MEAN_MASK: "the mean mask of the class",
    POSITION: "position alone",
    OTHER: "what it says when it is shown another class",
    RANDOM: "random weights",
}


def write_per_class(path: Path, queries: Sequence[Query], names: Sequence[str]) -> Path:
    """Write number, name, queries, foreground_iou and box_iou in percent of every class that has queries."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", "queries", FOREGROUND_IOU.name, BOX_IOU.name])
        for number, name in enumerate(names):
            if found := [query for query in queries if query.category == number]:
                means = (100 * float(np.mean([getattr(q, m.name) for q in found])) for m in (FOREGROUND_IOU, BOX_IOU))
                writer.writerow([number, name, len(found), *(f"{mean:.4f}" for mean in means)])
    return path
