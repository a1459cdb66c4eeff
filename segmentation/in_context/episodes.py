"""Which examples are shown with which query: drawn by a seed, the same for all weights.

An episode is a query with examples of its class. An image is no example of itself, as where both splits share images.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.images.reading import evenly_spaced
from metrics.foreground import Box

NAMED = 5  # classes in a note


class Pictured(Protocol):
    """An image with one object."""

    @property
    def name(self) -> str:
        """As results name it."""

    @property
    def path(self) -> Path:
        """Of the file."""

    @property
    def box(self) -> Box:
        """As annotated."""

    def mask(self) -> np.ndarray:
        """The pixels of the object, (H, W) bool."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A query, and what is shown with it."""

    query: Pictured
    examples: tuple[Pictured, ...]


@dataclass(frozen=True, kw_only=True)
class ClassEpisodes:
    """All queries of a class."""

    category: int
    name: str
    episodes: tuple[Episode, ...]
    pool: tuple[Pictured, ...]
    """What examples were drawn from."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Of all classes that have queries and examples."""

    classes: tuple[ClassEpisodes, ...]
    notes: tuple[str, ...]

    @property
    def queries(self) -> int:
        """Of all classes."""
        return sum(len(each.episodes) for each in self.classes)


def draw_episodes(
    pools: Mapping[int, Sequence[Pictured]],
    asked: Mapping[int, Sequence[Pictured]],
    names: Sequence[str],
    *,
    shots: int,
    most: int,
    seed: int,
) -> Drawn:
    """Return the episodes of every class, `most` queries of each, with `shots` examples or as many as there are.

    The seed draws the examples; queries are evenly spaced, the same for every seed, so that images can be resampled.
    `pools` and `asked` are by class. Raises ValueError where no class has both.
    """
    classes: list[ClassEpisodes] = []
    absent: list[int] = []
    few: list[str] = []
    for number, name in enumerate(names):
        found, pool = asked.get(number, ()), tuple(pools.get(number, ()))
        places = [os.path.realpath(example.path) for example in pool]
        drawn = []
        for index in evenly_spaced(range(len(found)), most):
            query = found[index]
            others = [k for k, place in enumerate(places) if place != os.path.realpath(query.path)]
            order = np.random.default_rng([seed, 0, number, index]).permutation(others)[:shots].tolist()
            if order:
                drawn.append(Episode(query=query, examples=tuple(pool[k] for k in order)))
        if found and not drawn:
            absent.append(number)
        if drawn:
            classes.append(ClassEpisodes(category=number, name=name, episodes=tuple(drawn), pool=pool))
            if (fewest := min(len(each.examples) for each in drawn)) < shots:
                few.append(f"{name} ({fewest})")
    if not classes:
        raise ValueError(
            f"no class has both an example and a query: of {len(names)} classes {sum(map(bool, pools.values()))} have "
            f"images to show, and {sum(map(bool, asked.values()))} images to ask about, with one object of it that is "
            "large enough. Lower --least-area, or give other splits."
        )
    notes = []
    if absent:
        lost = sum(len(asked[number]) for number in absent)
        notes.append(
            f"classes without an example to show: {len(absent)} ({_some([names[n] for n in absent])}); their {lost} "
            "queries are left out"
        )
    if few:
        notes.append(f"classes with fewer than {shots} examples, of which all are shown: {len(few)} ({_some(few)})")
    result = Drawn(classes=tuple(classes), notes=tuple(notes))
    candidates = sum(len(asked.get(each.category, ())) for each in classes)
    counted = (
        f"queries: {result.queries} of {candidates}, of {len(classes)} of {len(names)} classes, {most} a class at most"
    )
    return Drawn(classes=result.classes, notes=(counted, *result.notes))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
