"""The classes of the scenes: kinds of "stuff" (regions) and kinds of "thing" (countable objects), in two worlds.

A class is told apart by hue, texture and, for things, shape together. Hue ranges of neighbours overlap on
purpose, so that no single cue decides: a small ViT must combine them.

The worlds share no name, texture or outline: what is pre-trained on one and transferred to the other has seen none
of the classes that it is judged on. They share how a scene is built (`scenes/scene.py`) and all hues.

Label ids follow the hosts: semantic maps count from 1 with 0 = ignore as ADE20K, COCO category ids have gaps as
COCO's, and things are in alphabetical order so that ImageFolder numbers them as COCO does.
"""

from dataclasses import dataclass

import numpy as np

from scenes.config import WorldName

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


@dataclass(frozen=True, kw_only=True)
class World:
    """The classes that a scene is made of."""

    stuff: tuple[Stuff, ...]
    """With the semantic ids from 1 on."""
    things: tuple[Thing, ...]
    """With the semantic ids that follow, in alphabetical order."""

    @property
    def semantic_names(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of the semantic ids 1, 2, ..."""
        return (*(kind.name for kind in self.stuff), *(kind.name for kind in self.things))


def _stuff(
    number: int, name: str, hue: Range, saturation: Range, light_saturation: Range, dark: Range, light: Range
) -> Stuff:
    colouring = Colouring(hue=hue, saturation=saturation, light_saturation=light_saturation, dark=dark, light=light)
    return Stuff(name=name, semantic_id=number, colouring=colouring)


def _thing(number: int, coco_id: int, name: str, hue_centre: float, hue_reach: float) -> Thing:
    colouring = Colouring(
        hue=(hue_centre - hue_reach, hue_centre + hue_reach),
        saturation=(0.55, 1.0),
        light_saturation=(0.1, 0.55),
        dark=(0.3, 0.7),
        light=(0.75, 1.0),
    )
    return Thing(name=name, semantic_id=number, coco_id=coco_id, colouring=colouring)


_OUTDOOR = World(
    stuff=(
        _stuff(1, "brick", (5, 25), (0.5, 0.75), (0.05, 0.2), (0.4, 0.65), (0.7, 0.85)),
        _stuff(2, "grass", (80, 130), (0.5, 0.8), (0.4, 0.7), (0.2, 0.4), (0.55, 0.8)),
        _stuff(3, "rock", (0, 360), (0.0, 0.12), (0.0, 0.12), (0.2, 0.35), (0.5, 0.7)),
        _stuff(4, "sand", (32, 50), (0.3, 0.5), (0.2, 0.4), (0.6, 0.75), (0.85, 0.98)),
        _stuff(5, "sky", (190, 222), (0.4, 0.75), (0.03, 0.15), (0.65, 0.9), (0.9, 1.0)),
        _stuff(6, "snow", (190, 240), (0.08, 0.2), (0.0, 0.05), (0.7, 0.85), (0.93, 1.0)),
        _stuff(7, "water", (172, 225), (0.55, 0.85), (0.3, 0.55), (0.3, 0.5), (0.6, 0.85)),
        _stuff(8, "wood", (20, 38), (0.45, 0.7), (0.4, 0.6), (0.25, 0.4), (0.5, 0.75)),
    ),
    things=(
        _thing(9, 1, "ball", 355, 25),
        _thing(10, 2, "cone", 35, 25),
        _thing(11, 4, "cross", 312, 25),
        _thing(12, 5, "gem", 267, 25),
        _thing(13, 7, "leaf", 118, 25),
        _thing(14, 10, "moon", 222, 25),
        _thing(15, 11, "ring", 170, 25),
        _thing(16, 13, "star", 72, 25),
    ),
)

# More classes, with wider hues that each meet five others: to pre-train on.
_INDOOR = World(
    stuff=(
        _stuff(1, "carpet", (330, 380), (0.45, 0.8), (0.25, 0.5), (0.25, 0.45), (0.5, 0.75)),
        _stuff(2, "cork", (22, 42), (0.4, 0.65), (0.25, 0.45), (0.35, 0.55), (0.65, 0.85)),
        _stuff(3, "curtain", (60, 175), (0.35, 0.7), (0.2, 0.45), (0.3, 0.5), (0.65, 0.9)),
        _stuff(4, "denim", (205, 240), (0.45, 0.75), (0.15, 0.35), (0.25, 0.45), (0.6, 0.8)),
        _stuff(5, "knit", (0, 360), (0.3, 0.6), (0.1, 0.35), (0.4, 0.6), (0.75, 0.95)),
        _stuff(6, "marble", (0, 360), (0.0, 0.15), (0.0, 0.06), (0.35, 0.6), (0.85, 1.0)),
        _stuff(7, "parquet", (18, 45), (0.5, 0.75), (0.35, 0.6), (0.3, 0.5), (0.6, 0.85)),
        _stuff(8, "plaid", (240, 360), (0.4, 0.75), (0.1, 0.4), (0.25, 0.45), (0.7, 0.95)),
        _stuff(9, "terrazzo", (30, 210), (0.1, 0.3), (0.03, 0.15), (0.4, 0.6), (0.8, 0.97)),
        _stuff(10, "tile", (150, 230), (0.25, 0.55), (0.02, 0.15), (0.45, 0.65), (0.85, 1.0)),
        _stuff(11, "wallpaper", (0, 360), (0.2, 0.5), (0.05, 0.2), (0.55, 0.75), (0.85, 1.0)),
        _stuff(12, "wicker", (35, 60), (0.35, 0.6), (0.2, 0.4), (0.3, 0.5), (0.7, 0.9)),
    ),
    things=(
        _thing(13, 1, "arch", 10, 40),
        _thing(14, 3, "arrow", 220, 40),
        _thing(15, 4, "bolt", 100, 40),
        _thing(16, 6, "clover", 340, 40),
        _thing(17, 7, "cog", 190, 40),
        _thing(18, 9, "drop", 280, 40),
        _thing(19, 12, "frame", 70, 40),
        _thing(20, 13, "heart", 160, 40),
        _thing(21, 15, "house", 310, 40),
        _thing(22, 16, "kite", 40, 40),
        _thing(23, 18, "pill", 250, 40),
        _thing(24, 20, "tee", 130, 40),
    ),
)

WORLDS: dict[WorldName, World] = {"outdoor": _OUTDOOR, "indoor": _INDOOR}


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
