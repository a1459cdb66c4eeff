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


OUTLINES: dict[str, Outline] = {
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
