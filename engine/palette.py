"""Colours of classes that a data set gives none: such that can be told apart."""

from functools import cache

import numpy as np
from matplotlib.colors import TABLEAU_COLORS, XKCD_COLORS, to_rgb

LIGHTNESS = (25.0, 90.0)  # of CIELAB: darker ones look like what is ignored, lighter ones like paper
D65 = (0.95047, 1.0, 1.08883)
TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def told_apart(count: int) -> np.ndarray:
    """Return RGB of `count` classes, (count, 3) uint8.

    The first ten are Tableau's, as matplotlib keeps them. Each further one is that of the xkcd survey's 949 colours
    (matplotlib, too) which is furthest in CIELAB from all before it (Glasbey et al. 2007, doi 10.1002/col.20327); past
    the last they begin anew.
    """
    kept_K3 = _kept()
    return kept_K3[np.arange(count) % len(kept_K3)]


def ink_on(rgb: tuple[float, float, float]) -> str:
    """Return `black` or `white`, whichever stands out more from a colour (contrast ratio of WCAG 2, at least 4.5)."""
    return "black" if relative_luminance(rgb) > 0.179 else "white"  # (L + 0.05)^2 = 1.05 * 0.05


def relative_luminance(rgb: tuple[float, float, float]) -> float:
    """Return the luminance of sRGB from 0 to 1, 1 being that of white (WCAG 2)."""
    return float(_linear(np.array([rgb]))[0] @ np.array(TO_XYZ[1]))


def lab(rgb_K3: np.ndarray) -> np.ndarray:
    """Return CIELAB (D65) of sRGB from 0 to 1, (K, 3)."""
    x_K3 = _linear(rgb_K3) @ np.array(TO_XYZ).T / np.array(D65)
    f_K3 = np.where(x_K3 > (6 / 29) ** 3, np.cbrt(x_K3), x_K3 / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f_K3.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _linear(rgb_K3: np.ndarray) -> np.ndarray:
    linear: np.ndarray = np.where(rgb_K3 > 0.04045, ((rgb_K3 + 0.055) / 1.055) ** 2.4, rgb_K3 / 12.92)
    return linear


@cache
def _kept() -> np.ndarray:
    """Return 254 colours, as many classes as label maps of 8 bits can have, (254, 3) uint8."""
    chosen = [to_rgb(colour) for colour in TABLEAU_COLORS.values()]
    rgb_N3 = np.array([to_rgb(colour) for colour in XKCD_COLORS.values()])
    lab_N3 = lab(rgb_N3)
    usable_N = (LIGHTNESS[0] <= lab_N3[:, 0]) & (lab_N3[:, 0] <= LIGHTNESS[1])
    rgb_N3, lab_N3 = rgb_N3[usable_N], lab_N3[usable_N]
    far_N = np.linalg.norm(lab_N3[:, None] - lab(np.array(chosen))[None], axis=2).min(axis=1)
    while len(chosen) < 254:
        at = int(far_N.argmax())
        chosen.append(tuple(rgb_N3[at]))
        far_N = np.minimum(far_N, np.linalg.norm(lab_N3 - lab_N3[at], axis=1))
    return np.round(255 * np.array(chosen)).astype(np.uint8)
