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


def _carpet(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pile = smooth_noise(x, y, rng, cell=(1.2, 1.2))
    tufts = 0.5 + 0.5 * np.sin(TAU * x / rng.uniform(2.6, 3.6)) * np.sin(TAU * y / rng.uniform(2.6, 3.6))
    return 0.5 * pile + 0.5 * tufts


def _cork(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pores = smooth_noise(x, y, rng, cell=(2.2, 2.2)) < 0.25
    return np.where(pores, 0.0, 0.45 + 0.55 * smooth_noise(x, y, rng, cell=(3.5, 3.5)))


def _curtain(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sway = rng.uniform(2.0, 5.0) * smooth_noise(x, y, rng, cell=(30.0, 12.0))
    fold = TAU * (x + sway) / rng.uniform(7.0, 12.0) + rng.uniform(0.0, TAU)
    return 0.5 + 0.35 * np.sin(fold) + 0.15 * np.sin(2.7 * fold)


def _denim(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    twill = _hard(np.sin(TAU * (x + y * rng.uniform(0.7, 1.1)) / rng.uniform(2.6, 3.4)))
    return 0.6 * twill + 0.4 * smooth_noise(x, y, rng, cell=(14.0, 2.0))


def _knit(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    width = rng.uniform(5.0, 7.0)
    column = (x + rng.uniform(0.0, width)) / width
    slant = np.abs(column % 1.0 - 0.5) * 1.4 * width
    stitches = _hard(np.sin(TAU * (y + slant) / rng.uniform(3.0, 4.2)))
    return np.where(np.abs(column % 1.0 - 0.5) > 0.42, 0.0, stitches)


def _marble(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drift = rng.uniform(18.0, 26.0) * smooth_noise(x, y, rng, cell=(14.0, 14.0))
    vein = np.abs(np.sin(TAU * (x * rng.uniform(-0.5, 0.5) + y + drift) / rng.uniform(18.0, 26.0)))
    return np.clip(2.2 * vein, 0.0, 1.0) * (0.8 + 0.2 * smooth_noise(x, y, rng, cell=(4.0, 4.0)))


def _parquet(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = rng.uniform(9.0, 13.0)
    u, v = (x + rng.uniform(0.0, size)) / size, (y + rng.uniform(0.0, size)) / size
    lying = (np.floor(u) + np.floor(v)) % 2 == 0
    across = np.where(lying, v + 0.0 * u, u + 0.0 * v)
    strip = across * 4.0
    tile = (7 * np.floor(u) + 13 * np.floor(v) + 3 * np.floor(strip % 4.0)).astype(int)
    shade = 0.2 + 0.6 * rng.random(64, dtype=np.float32)[tile % 64]
    seam = (strip % 1.0 < 0.14) | (u % 1.0 < 0.06) | (v % 1.0 < 0.06)
    return np.where(seam, 0.0, shade)


def _plaid(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(8.0, 13.0)
    warp = _hard(np.sin(TAU * x / pitch + rng.uniform(0.0, TAU)))
    weft = _hard(np.sin(TAU * y / pitch + rng.uniform(0.0, TAU)))
    line = (x / pitch % 1.0 < 0.09) | (y / pitch % 1.0 < 0.09)
    return np.where(line, 1.0, 0.4 * warp + 0.4 * weft)


def _terrazzo(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Chips are what is near to one of the points, in the shade of that point.
    count = int(rng.integers(36, 60))
    centres = rng.uniform(0.0, 1.0, size=(count, 2)) * (float(x[0, -1]), float(y[-1, 0]))
    reach = rng.uniform(1.2, 3.6, size=count)
    shades = rng.uniform(0.0, 0.6, size=count)
    field = np.ones((y.shape[0], x.shape[1]))
    for (left, top), radius, shade in zip(centres, reach, shades, strict=True):
        chip = np.abs(x - left) + 0.7 * np.abs(y - top) + 0.5 * np.abs(x - left + y - top)
        field = np.where(chip < 1.5 * radius, shade, field)
    return field


def _tile(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = rng.uniform(7.0, 11.0)
    u, v = (x + rng.uniform(0.0, size)) / size, (y + rng.uniform(0.0, size)) / size
    glaze = (
        0.65
        + 0.3 * (u % 1.0) * (v % 1.0)
        + 0.05 * rng.random((16, 16))[np.floor(v).astype(int) % 16, np.floor(u).astype(int) % 16]
    )
    grout = (u % 1.0 < 1.2 / size) | (v % 1.0 < 1.2 / size)
    return np.where(grout, 0.0, glaze)


def _wallpaper(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(6.0, 10.0)
    row = y / pitch + rng.random()
    u = (x / pitch + rng.random() + 0.5 * (np.floor(row) % 2)) % 1.0 - 0.5
    v = row % 1.0 - 0.5
    radius = np.hypot(u, v)
    petals = 0.3 + 0.1 * np.cos(int(rng.integers(4, 7)) * np.arctan2(v, u))
    return np.clip(1.0 + 6.0 * (radius - petals), 0.0, 1.0) * np.clip(8.0 * radius, 0.0, 1.0)


def _wicker(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(3.2, 4.6)
    u, v = x / pitch + rng.random(), y / pitch + rng.random()
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    return np.where(over, np.sin(np.pi * (v % 1.0)) + 0.0 * u, 0.7 * np.sin(np.pi * (u % 1.0)) + 0.0 * v)


STUFF_TEXTURES: dict[str, StuffTexture] = {
    "carpet": _carpet,
    "cork": _cork,
    "curtain": _curtain,
    "denim": _denim,
    "knit": _knit,
    "marble": _marble,
    "parquet": _parquet,
    "plaid": _plaid,
    "terrazzo": _terrazzo,
    "tile": _tile,
    "wallpaper": _wallpaper,
    "wicker": _wicker,
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


def _ripples(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(rng.uniform(14.0, 20.0) * np.hypot(x, y) + rng.uniform(0.0, TAU)))


def _pinstripes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(rng.uniform(16.0, 22.0) * x + rng.uniform(0.0, TAU)) - 0.5) + 0.0 * y


def _thread(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turns = rng.uniform(9.0, 13.0) * np.hypot(x, y)
    return _hard(np.sin(turns + 2.0 * np.arctan2(y, x) + rng.uniform(0.0, TAU)))


def _petals(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # A bright eye in each of the four leaves, thin crossed lines between them.
    eye = np.hypot(np.abs(x) - 0.39, np.abs(y) - 0.39) < rng.uniform(0.14, 0.22)
    return np.where(eye | (np.minimum(np.abs(x), np.abs(y)) < 0.05), 1.0, rng.uniform(0.1, 0.35))


def _spokes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius = np.hypot(x, y)
    spokes = _hard(np.cos(5.0 * np.arctan2(y, x) + rng.uniform(0.0, TAU)) - 0.6)
    return np.where(radius > 0.66, 0.0, np.where(radius < rng.uniform(0.18, 0.28), 1.0, spokes))


def _sheen(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spot = np.hypot(x + 0.2, y - 0.2) < rng.uniform(0.12, 0.2)
    return np.where(spot, 1.0, np.clip(0.75 - rng.uniform(0.6, 0.9) * y, 0.0, 1.0))


def _hatch(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _hard(np.sin(rng.uniform(12.0, 17.0) * (x + y) + rng.uniform(0.0, TAU)))


def _dots(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(0.34, 0.46)
    row = y / pitch + rng.random()
    u = (x / pitch + rng.random() + 0.5 * (np.floor(row) % 2)) % 1.0 - 0.5
    return _hard(4.0 * (0.28 - np.hypot(u, row % 1.0 - 0.5)))


def _shingles(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(0.3, 0.42)
    row = y / pitch + rng.random()
    u = (x / pitch + 0.5 * (np.floor(row) % 2)) % 1.0 - 0.5
    return np.clip(1.2 - 1.8 * np.hypot(u, row % 1.0), 0.0, 1.0)


def _lattice(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(9.0, 13.0)
    return np.maximum(_hard(np.sin(pitch * x) - 0.75), _hard(np.sin(pitch * y) - 0.75))


def _halves(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(np.abs(x) < rng.uniform(0.06, 0.12), 0.7, _hard(8.0 * y + 0.0 * x))


def _zigzag(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    fold = np.abs((rng.uniform(1.6, 2.4) * x + rng.random()) % 1.0 - 0.5)
    return _hard(np.sin(rng.uniform(12.0, 16.0) * (y + 0.7 * fold)))


THING_TEXTURES: dict[str, ThingTexture] = {
    "arch": _ripples,
    "arrow": _pinstripes,
    "bolt": _thread,
    "clover": _petals,
    "cog": _spokes,
    "drop": _sheen,
    "frame": _hatch,
    "heart": _dots,
    "house": _shingles,
    "kite": _lattice,
    "pill": _halves,
    "tee": _zigzag,
    "ball": _wedges,
    "cone": _bands,
    "cross": _checks,
    "gem": _facets,
    "leaf": _veins,
    "moon": _craters,
    "ring": _segments,
    "star": _glow,
}
