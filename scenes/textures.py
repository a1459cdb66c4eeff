"""Textures: for each class a field in 0..1 that blends its dark into its light tone.

Stuff textures live on the canvas, in units of 1/64 of the image's shorter side, so that a larger image shows
the same texture with more detail. Thing textures live on the object's own axes, where its outline lies within
radius 1.

Axes: H, W the canvas; h, w the window of one thing. On the canvas, coordinates are open grids: x is (1, W),
y is (H, 1).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

StuffTexture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
ThingTexture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

TAU = 2.0 * np.pi


def smooth_noise(
    x_1W: np.ndarray, y_H1: np.ndarray, rng: np.random.Generator, *, cell: tuple[float, float]
) -> np.ndarray:
    """Return smooth noise (H, W) in 0..1 whose features are `cell` = (height, width) canvas units large."""
    height, width = y_H1.shape[0], x_1W.shape[1]
    rows = max(2, round(float(y_H1[-1, 0]) / cell[0]))
    columns = max(2, round(float(x_1W[0, -1]) / cell[1]))
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.clip(np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)), 0.0, 1.0)


def _hard(wave: np.ndarray) -> np.ndarray:
    """Return a wave in -1..1 as bands in 0..1 with short soft edges."""
    return np.clip(0.5 + 2.5 * wave, 0.0, 1.0)


def _brick(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height = rng.uniform(5.0, 8.0)
    width = height * rng.uniform(1.8, 2.4)
    row = (y + rng.uniform(0.0, height)) / height
    column = (x + rng.uniform(0.0, width)) / width + 0.5 * (np.floor(row) % 2)
    shade = rng.random((32, 32), dtype=np.float32)
    brick = 0.4 * shade[np.floor(row).astype(int) % 32, np.floor(column).astype(int) % 32]
    mortar = (row % 1.0 < 1.3 / height) | (column % 1.0 < 1.3 / width)
    return np.where(mortar, 1.0, brick)


def _grass(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blades = smooth_noise(x, y, rng, cell=(6.0, 1.4))
    return 0.75 * blades + 0.25 * smooth_noise(x, y, rng, cell=(16.0, 16.0))


def _rock(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    coarse = smooth_noise(x, y, rng, cell=(9.0, 9.0))
    cracked = np.clip(np.abs(coarse - 0.5) / 0.06, 0.0, 1.0)
    return cracked * (0.55 * coarse + 0.45 * smooth_noise(x, y, rng, cell=(2.5, 2.5)))


def _sand(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drift = 10.0 * smooth_noise(x, y, rng, cell=(24.0, 24.0))
    dunes = 0.5 + 0.5 * np.sin(TAU * ((y + drift) / rng.uniform(10.0, 16.0) + rng.random()))
    return 0.45 * dunes + 0.55 * smooth_noise(x, y, rng, cell=(1.0, 1.0))


def _sky(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    clouds = np.clip(2.5 * smooth_noise(x, y, rng, cell=(8.0, 18.0)) - rng.uniform(1.0, 1.8), 0.0, 1.0)
    return np.maximum(clouds, 0.45 * y / float(y[-1, 0]))


def _snow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drifts = 0.2 + 0.7 * smooth_noise(x, y, rng, cell=(12.0, 20.0))
    flakes = smooth_noise(x, y, rng, cell=(1.6, 1.6)) > 0.9
    return np.where(flakes, 1.0, drifts)


def _water(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    swell = np.sin(TAU * (x / rng.uniform(14.0, 26.0) + rng.random()))
    drift = 3.0 * smooth_noise(x, y, rng, cell=(10.0, 14.0))
    waves = 0.5 + 0.5 * np.sin(TAU * (y + 1.2 * swell + drift) / rng.uniform(5.0, 8.0))
    return waves**2


def _wood(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        across, along = x, y
        drift = smooth_noise(x, y, rng, cell=(28.0, 8.0))
    else:
        across, along = y, x
        drift = smooth_noise(x, y, rng, cell=(8.0, 28.0))
    plank = (across + 0.0 * along + rng.uniform(0.0, 16.0)) / rng.uniform(11.0, 18.0)
    shade = 0.4 * rng.random(64, dtype=np.float32)[np.floor(plank).astype(int) % 64]
    grain = 0.5 + 0.5 * np.sin(TAU * (across + 5.0 * drift) / rng.uniform(2.5, 3.5))
    return np.where(plank % 1.0 < 0.08, 0.0, 0.2 + shade + 0.4 * grain)


STUFF_TEXTURES: dict[str, StuffTexture] = {
    "brick": _brick,
    "grass": _grass,
    "rock": _rock,
    "sand": _sand,
    "sky": _sky,
    "snow": _snow,
    "water": _water,
    "wood": _wood,
}


def _wedges(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(3.0 * np.arctan2(y, x) + rng.uniform(0.0, TAU)))


def _bands(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(rng.uniform(6.0, 8.5) * y + rng.uniform(0.0, TAU)) + 0.0 * x)


def _checks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(6.0, 8.5)
    return _hard(2.0 * np.sin(pitch * x) * np.sin(pitch * y))


def _facets(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    table = 4.0 * (rng.uniform(0.38, 0.48) - np.maximum(np.abs(x), np.abs(y)))
    return _hard(np.maximum(np.minimum(table, 1.0), 1.0 - 6.0 * np.abs(x - y)) - 0.2)


def _veins(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = np.sin(rng.uniform(9.0, 13.0) * (y - 0.8 * np.abs(x)))
    return np.maximum(_hard(side - 0.5), np.clip(1.5 - 12.0 * np.abs(x), 0.0, 1.0))


def _craters(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(7.0, 10.0)
    spots = np.sin(pitch * x + rng.uniform(0.0, TAU)) + np.sin(pitch * y + rng.uniform(0.0, TAU))
    return 1.0 - _hard(spots - 1.0)


def _segments(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(int(rng.integers(7, 10)) * np.arctan2(y, x) + rng.uniform(0.0, TAU)))


def _glow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(1.0, 1.3) - 1.5 * np.hypot(x, y), 0.0, 1.0)


THING_TEXTURES: dict[str, ThingTexture] = {
    "ball": _wedges,
    "cone": _bands,
    "cross": _checks,
    "gem": _facets,
    "leaf": _veins,
    "moon": _craters,
    "ring": _segments,
    "star": _glow,
}
