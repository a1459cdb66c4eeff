"""The classes of the scenes: eight kinds of "stuff" (regions) and eight kinds of "thing" (countable objects).

A class is told apart by hue, texture and, for things, shape together. Hue ranges of neighbours overlap on
purpose, so that no single cue decides: a small ViT must combine them.

Label ids follow the hosts: semantic maps use 1..16 with 0 = ignore as ADE20K, COCO category ids have gaps as
COCO's, and things are in alphabetical order so that ImageFolder numbers them as COCO does.
"""

from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

IGNORE = 0
"""Semantic id of pixels without a class."""

ODD_HUE_SHARE = 0.05
"""Share of things with a hue outside of their category's range, so that hue alone cannot decide."""


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """The range that the two tones of a texture are drawn from: both share a hue."""

    hue: Range
    """Degrees; may pass 360."""
    saturation: Range
    """Of the dark tone, 0..1."""
    light_saturation: Range
    """Of the light tone, 0..1."""
    dark: Range
    """Value (brightness) of the dark tone, 0..1."""
    light: Range
    """Value (brightness) of the light tone, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Stuff:
    """A kind of region."""

    name: str
    semantic_id: int
    colouring: Colouring


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A kind of object."""

    name: str
    semantic_id: int
    coco_id: int
    """Category id in the COCO files: with gaps, as COCO's 1..90 have."""
    colouring: Colouring


def _stuff(
    number: int, name: str, hue: Range, saturation: Range, light_saturation: Range, dark: Range, light: Range
) -> Stuff:
    colouring = Colouring(hue=hue, saturation=saturation, light_saturation=light_saturation, dark=dark, light=light)
    return Stuff(name=name, semantic_id=number, colouring=colouring)


def _thing(number: int, coco_id: int, name: str, hue_centre: float) -> Thing:
    colouring = Colouring(
        hue=(hue_centre - 25, hue_centre + 25),
        saturation=(0.55, 1.0),
        light_saturation=(0.1, 0.55),
        dark=(0.3, 0.7),
        light=(0.75, 1.0),
    )
    return Thing(name=name, semantic_id=number, coco_id=coco_id, colouring=colouring)


STUFF: tuple[Stuff, ...] = (
    _stuff(1, "brick", (5, 25), (0.5, 0.75), (0.05, 0.2), (0.4, 0.65), (0.7, 0.85)),
    _stuff(2, "grass", (80, 130), (0.5, 0.8), (0.4, 0.7), (0.2, 0.4), (0.55, 0.8)),
    _stuff(3, "rock", (0, 360), (0.0, 0.12), (0.0, 0.12), (0.2, 0.35), (0.5, 0.7)),
    _stuff(4, "sand", (32, 50), (0.3, 0.5), (0.2, 0.4), (0.6, 0.75), (0.85, 0.98)),
    _stuff(5, "sky", (190, 222), (0.4, 0.75), (0.03, 0.15), (0.65, 0.9), (0.9, 1.0)),
    _stuff(6, "snow", (190, 240), (0.08, 0.2), (0.0, 0.05), (0.7, 0.85), (0.93, 1.0)),
    _stuff(7, "water", (172, 225), (0.55, 0.85), (0.3, 0.55), (0.3, 0.5), (0.6, 0.85)),
    _stuff(8, "wood", (20, 38), (0.45, 0.7), (0.4, 0.6), (0.25, 0.4), (0.5, 0.75)),
)

THINGS: tuple[Thing, ...] = (
    _thing(9, 1, "ball", 355),
    _thing(10, 2, "cone", 35),
    _thing(11, 4, "cross", 312),
    _thing(12, 5, "gem", 267),
    _thing(13, 7, "leaf", 118),
    _thing(14, 10, "moon", 222),
    _thing(15, 11, "ring", 170),
    _thing(16, 13, "star", 72),
)

SEMANTIC_NAMES: tuple[str, ...] = (*(kind.name for kind in STUFF), *(kind.name for kind in THINGS))
"""Class names in the order of the semantic ids 1..16."""


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return the RGB colour (3,), float32 in 0..1; `hue` in degrees, taken modulo 360."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue / 60.0) % 6.0
    ramp = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    return (value - value * saturation * ramp).astype(np.float32)


def draw_tones(colouring: Colouring, rng: np.random.Generator, *, odd_hue: bool) -> np.ndarray:
    """Return a dark and a light RGB tone, (2, 3); `odd_hue` takes any hue instead of the class's own."""
    hue = rng.uniform(0.0, 360.0) if odd_hue else rng.uniform(*colouring.hue)
    dark = hsv_to_rgb(hue, rng.uniform(*colouring.saturation), rng.uniform(*colouring.dark))
    light = hsv_to_rgb(hue, rng.uniform(*colouring.light_saturation), rng.uniform(*colouring.light))
    return np.stack([dark, light])
