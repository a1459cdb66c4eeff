"""Outlines of things as signed distances: negative inside, in units of the object's radius.

A distance in pixels gives both the exact mask (distance < 0) and the soft edge of the drawn object, without
supersampling. Each outline lies within radius 1. Distances are exact at the outline, bounds elsewhere.

Axes: h, w the window of one thing.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _ball(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1.0


def _cone(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Half-plane through the tip (0, -1) and the foot (0.75, 0.66), mirrored, and the base.
    return np.maximum((1.66 * np.abs(x) - 0.75 * (y + 1.0)) / np.hypot(1.66, 0.75), y - 0.66)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(u - 0.92, v - 0.32), np.maximum(u - 0.32, v - 0.92))


def _gem(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.7


def _leaf(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Two discs of radius 1.25 meet in the tips (0, -1) and (0, 1).
    return np.hypot(np.abs(x) + 0.75, y) - 1.25


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 1.0, 0.85 - np.hypot(x - 0.55, y))


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.75) - 0.25


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Folded onto half a point: the edge runs from the tip (1, 0) to a notch of radius 0.45 at 36 degrees.
    angle = np.abs((np.arctan2(y, x) + np.pi / 5.0) % (0.4 * np.pi) - np.pi / 5.0)
    radius = np.hypot(x, y)
    notch = 0.45 * np.array([np.cos(np.pi / 5.0), np.sin(np.pi / 5.0)])
    edge = notch - np.array([1.0, 0.0])
    along, across = radius * np.cos(angle) - 1.0, radius * np.sin(angle)
    return (along * edge[1] - across * edge[0]) / np.hypot(*edge)


def _arch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(np.hypot(x, y) - 0.72) - 0.28, y - 0.25)


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A shaft, and a head from the tip (0, -1) to (0.68, 0).
    head = np.maximum((np.abs(x) - 0.68 * (y + 1.0)) / np.hypot(1.0, 0.68), y)
    return np.minimum(head, np.maximum(np.abs(x) - 0.26, np.abs(y - 0.42) - 0.5))


def _bolt(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = np.abs(x), np.abs(y)
    return np.maximum(v, 0.5 * v + np.sqrt(0.75) * u) - 0.86


def _clover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(np.abs(x) - 0.39, np.abs(y) - 0.39) - 0.44


def _cog(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Eight teeth; their flanks are steep, so a distance there is the height to the tooth's edge, cut short.
    teeth = np.clip(2.5 * np.sin(8.0 * np.arctan2(y, x)), -1.0, 1.0)
    return np.hypot(x, y) - 0.84 - 0.15 * teeth


def _drop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A disc of radius 0.6 about (0, 0.38) and its tangents from (0, -1), which touch it at sine 0.6 / 1.38.
    sine = 0.6 / 1.38
    cap = np.abs(x) * np.sqrt(1.0 - sine**2) - (y + 1.0) * sine
    return np.minimum(np.hypot(x, y - 0.38) - 0.6, np.maximum(cap, y - (0.38 - 0.6 * sine)))


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.54) - 0.16


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A square on its corner (0, 0.85) and a half disc on each of its upper sides.
    u = np.abs(x)
    square = (u + np.abs(y - 0.13) - 0.72) / np.sqrt(2.0)
    return np.minimum(square, np.hypot(u - 0.36, y + 0.23) - 0.36 * np.sqrt(2.0))


def _house(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u = np.abs(x)
    roof = (0.7 * u - 0.62 * (y + 0.95)) / np.hypot(0.7, 0.62)
    return np.maximum(np.maximum(u - 0.62, y - 0.7), roof)


def _kite(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # From (0, -0.95) over (0.62, -0.25) to (0, 1).
    u = np.abs(x)
    upper = (0.7 * u - 0.62 * (y + 0.95)) / np.hypot(0.7, 0.62)
    return np.maximum(upper, (1.25 * u + 0.62 * (y - 1.0)) / np.hypot(1.25, 0.62))


def _pill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, np.maximum(np.abs(y) - 0.58, 0.0)) - 0.4


def _tee(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bar = np.maximum(np.abs(x) - 0.72, np.abs(y + 0.45) - 0.23)
    return np.minimum(bar, np.maximum(np.abs(x) - 0.24, np.abs(y - 0.15) - 0.8))


OUTLINES: dict[str, Outline] = {
    "arch": _arch,
    "arrow": _arrow,
    "bolt": _bolt,
    "clover": _clover,
    "cog": _cog,
    "drop": _drop,
    "frame": _frame,
    "heart": _heart,
    "house": _house,
    "kite": _kite,
    "pill": _pill,
    "tee": _tee,
    "ball": _ball,
    "cone": _cone,
    "cross": _cross,
    "gem": _gem,
    "leaf": _leaf,
    "moon": _moon,
    "ring": _ring,
    "star": _star,
}


@cache
def unit_area(name: str) -> float:
    """Return the area of an outline of radius 1, to about 0.1 %."""
    axis = (np.arange(1024) + 0.5) / 512.0 - 1.0
    inside = OUTLINES[name](axis[None, :], axis[:, None]) < 0.0
    return float(inside.mean() * 4.0)
