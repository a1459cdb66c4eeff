"""One scene: two or more regions of stuff with one to five things on them, and its exact labels.

`render_scene(world, seed, index, size)` is a pure function. The largest thing, the main object, gives the image its
class: it is drawn several times larger than the others and stays mostly visible, so the label is never in
doubt. Its category is `index` modulo the number of categories, hence every run of scenes is balanced.

Axes: H, W the canvas; h, w the window of one thing.
"""

from dataclasses import dataclass

import numpy as np

from scenes.classes import IGNORE, ODD_HUE_SHARE, Stuff, Thing, World, draw_tones
from scenes.shapes import OUTLINES, unit_area
from scenes.textures import STUFF_TEXTURES, THING_TEXTURES, smooth_noise

MIN_SIDE = 32
"""Pixels: below it the smaller things would be a dozen pixels with no texture left."""

MAIN_AREA = (0.14, 0.28)
OTHER_AREA = (0.014, 0.04)
"""Area before occlusion, as a share of the shorter side squared."""

MAIN_VISIBLE = 0.6
OTHER_VISIBLE = 0.45
"""Least visible share of a thing. 0.6 * 0.14 > 0.04: the main object is the largest by construction."""

PLACING_ATTEMPTS = 8
"""A thing that finds no place in so many draws is left out of the scene."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """One thing as it is seen: what is in front of it is cut away."""

    category: Thing
    mask_HW: np.ndarray
    """bool."""

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask_HW.sum())

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels, as COCO's."""
        columns = np.flatnonzero(self.mask_HW.any(axis=0))
        rows = np.flatnonzero(self.mask_HW.any(axis=1))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """An image with its labels; instances from back to front."""

    image_HW3: np.ndarray
    """uint8 RGB."""
    semantic_HW: np.ndarray
    """uint8: 0 = ignore (the seam between regions), 1, 2, ... = stuff and things."""
    instances: tuple[Instance, ...]

    @property
    def main(self) -> Instance:
        """The largest visible thing, whose category is the class of the image."""
        return max(self.instances, key=lambda instance: instance.area)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    """A thing with its place: how to paint it, and the pixels it covers with nothing in front."""

    category: Thing
    is_main: bool
    window: tuple[slice, slice]
    x_hw: np.ndarray
    y_hw: np.ndarray
    distance_hw: np.ndarray
    """Signed, in pixels."""
    full_area: float
    """Pixels, including what lies outside of the image."""
    footprint_HW: np.ndarray


def canvas_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width); raises ValueError when a side is below `MIN_SIDE` pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"image size {height}x{width}: scenes need {MIN_SIDE} pixels or more on each side, "
            "below that the smaller things are not recognisable; pass a larger size."
        )
    return height, width


def render_scene(world: World, seed: int, index: int, size: int | tuple[int, int]) -> Scene:
    """Return scene number `index` of the stream `seed`; `size` is one side or (height, width) in pixels."""
    height, width = canvas_size(size)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    image_HW3, semantic_HW = _paint_stuff(world.stuff, height, width, rng)
    placed = _place_things(world.things, index % len(world.things), height, width, rng)
    for thing in placed:
        _paint_thing(image_HW3, thing, rng)
    instances = tuple(
        Instance(category=thing.category, mask_HW=mask_HW)
        for thing, mask_HW in zip(placed, _visible(placed), strict=True)
    )
    for instance in instances:
        semantic_HW[instance.mask_HW] = instance.category.semantic_id
    image_HW3 *= rng.uniform(0.8, 1.1) * rng.uniform(0.94, 1.06, size=3).astype(np.float32)
    image_HW3 += rng.uniform(0.01, 0.03) * rng.standard_normal(image_HW3.shape, dtype=np.float32)
    pixels_HW3 = np.rint(255.0 * np.clip(image_HW3, 0.0, 1.0)).astype(np.uint8)
    return Scene(image_HW3=pixels_HW3, semantic_HW=semantic_HW, instances=instances)


def _paint_stuff(
    stuff: tuple[Stuff, ...], height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the background (H, W, 3) in 0..1 and its semantic map: two or three regions."""
    unit = min(height, width) / 64.0
    x_1W = ((np.arange(width, dtype=np.float32) + 0.5) / unit)[None, :]
    y_H1 = ((np.arange(height, dtype=np.float32) + 0.5) / unit)[:, None]
    kinds = _draw_stuff(stuff, rng)
    image_HW3 = _stuff_colours(kinds[0], x_1W, y_H1, rng)
    semantic_HW = np.full((height, width), kinds[0].semantic_id, dtype=np.uint8)
    # Sky stays on top of a horizon; without it the regions may also stand side by side.
    upright = kinds[0].name != "sky" and rng.random() < 0.4
    tilt = rng.uniform(-0.25, 0.25) + (np.pi / 2.0 if upright else 0.0)
    # From 0 at one side of the image to 1 at the other, whatever its proportions.
    across = np.array([np.sin(tilt), np.cos(tilt)])
    ramp_HW = across[0] * (x_1W * unit / width - 0.5) + across[1] * (y_H1 * unit / height - 0.5) + 0.5
    pixels_per_ramp = 1.0 / np.hypot(across[0] / width, across[1] / height)
    for number, kind in enumerate(kinds[1:], start=1):
        start = number / len(kinds) + rng.uniform(-0.1, 0.1)
        bend = rng.uniform(2.0, 10.0) * (smooth_noise(x_1W, y_H1, rng, cell=(16.0, 16.0)) - 0.5)
        distance_HW = (ramp_HW - start) * pixels_per_ramp + bend * unit
        cover_HW = np.clip(0.5 + distance_HW, 0.0, 1.0).astype(np.float32)
        colours_HW3 = _stuff_colours(kind, x_1W, y_H1, rng)
        image_HW3 += cover_HW[..., None] * (colours_HW3 - image_HW3)
        semantic_HW[cover_HW >= 0.2] = IGNORE
        semantic_HW[cover_HW > 0.8] = kind.semantic_id
    return image_HW3, semantic_HW


def _draw_stuff(stuff: tuple[Stuff, ...], rng: np.random.Generator) -> list[Stuff]:
    """Return two or three different kinds of stuff, sky first."""
    count = int(rng.choice([2, 3], p=[0.55, 0.45]))
    kinds = [stuff[number] for number in rng.permutation(len(stuff))[:count]]
    return sorted(kinds, key=lambda kind: kind.name != "sky")


def _stuff_colours(kind: Stuff, x_1W: np.ndarray, y_H1: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the class's texture over the whole canvas, (H, W, 3) float32."""
    tones_23 = draw_tones(kind.colouring, rng, odd_hue=False)
    blend_HW = STUFF_TEXTURES[kind.name](x_1W, y_H1, rng).astype(np.float32)
    return tones_23[0] + blend_HW[..., None] * (tones_23[1] - tones_23[0])


def _place_things(
    things: tuple[Thing, ...], main: int, height: int, width: int, rng: np.random.Generator
) -> list[_Placed]:
    """Return one to five things from back to front, each visible enough to count; number `main` is the largest."""
    placed = [_draw_place(things[main], height, width, rng, is_main=True)]
    while not _visible_enough(placed):
        placed = [_draw_place(things[main], height, width, rng, is_main=True)]
    for _ in range(int(rng.integers(0, 5))):
        category = things[int(rng.integers(len(things)))]
        for _ in range(PLACING_ATTEMPTS):
            depth = int(rng.integers(len(placed) + 1))
            other = _draw_place(category, height, width, rng, is_main=False)
            trial = [*placed[:depth], other, *placed[depth:]]
            if _visible_enough(trial):
                placed = trial
                break
    return placed


def _draw_place(category: Thing, height: int, width: int, rng: np.random.Generator, *, is_main: bool) -> _Placed:
    """Return the thing at a random place, scale, proportion and angle; it may reach over the edge."""
    area = rng.uniform(*(MAIN_AREA if is_main else OTHER_AREA)) * min(height, width) ** 2
    stretch = rng.uniform(0.75, 1.0)
    radius = float(np.sqrt(area / (unit_area(category.name) * stretch)))
    margin = 0.3 if is_main else 0.06
    centre_x, centre_y = rng.uniform(margin, 1.0 - margin, size=2) * (width, height)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    rows = slice(max(0, int(centre_y - radius) - 1), min(height, int(centre_y + radius) + 2))
    columns = slice(max(0, int(centre_x - radius) - 1), min(width, int(centre_x + radius) + 2))
    dx_1w = (np.arange(columns.start, columns.stop) + 0.5 - centre_x)[None, :] / radius
    dy_h1 = (np.arange(rows.start, rows.stop) + 0.5 - centre_y)[:, None] / radius
    x_hw = np.cos(angle) * dx_1w + np.sin(angle) * dy_h1
    y_hw = (np.cos(angle) * dy_h1 - np.sin(angle) * dx_1w) / stretch
    distance_hw = radius * OUTLINES[category.name](x_hw, y_hw)
    footprint_HW = np.zeros((height, width), dtype=bool)
    footprint_HW[rows, columns] = distance_hw < 0.0
    return _Placed(
        category=category,
        is_main=is_main,
        window=(rows, columns),
        x_hw=x_hw,
        y_hw=y_hw,
        distance_hw=distance_hw,
        full_area=area,
        footprint_HW=footprint_HW,
    )


def _visible(placed: list[_Placed]) -> list[np.ndarray]:
    """Return what is seen of each thing, given from back to front."""
    masks: list[np.ndarray] = []
    hidden_HW = np.zeros_like(placed[0].footprint_HW)
    for thing in reversed(placed):
        masks.append(thing.footprint_HW & ~hidden_HW)
        hidden_HW |= thing.footprint_HW
    return masks[::-1]


def _visible_enough(placed: list[_Placed]) -> bool:
    shares = [mask.sum() / thing.full_area for thing, mask in zip(placed, _visible(placed), strict=True)]
    return all(
        share >= (MAIN_VISIBLE if thing.is_main else OTHER_VISIBLE) for thing, share in zip(placed, shares, strict=True)
    )


def _paint_thing(image_HW3: np.ndarray, thing: _Placed, rng: np.random.Generator) -> None:
    """Paint the thing over the image, in place, with a soft edge and a darker rim."""
    tones_23 = draw_tones(thing.category.colouring, rng, odd_hue=rng.random() < ODD_HUE_SHARE)
    blend_hw = THING_TEXTURES[thing.category.name](thing.x_hw, thing.y_hw, rng)
    rim_hw = np.clip(0.7 - 0.15 * thing.distance_hw, 0.7, 1.0)
    colours_hw3 = rim_hw[..., None] * (tones_23[0] + blend_hw[..., None] * (tones_23[1] - tones_23[0]))
    cover_hw1 = np.clip(0.5 - thing.distance_hw, 0.0, 1.0)[..., None]
    window_hw3 = image_HW3[thing.window]
    window_hw3 += (cover_hw1 * (colours_hw3 - window_hw3)).astype(np.float32)
